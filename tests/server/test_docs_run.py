"""Every command of README and docs, typed as a reader would, against the server of `make serve`.

A block of code without a remark is run. A comment above it says otherwise: `not run: WHY`, `run by:
TEST` where a test has the same with its own server, `run with: PACKAGE` where it needs a package
that vtprune does not. The latter are looked for in the virtual environment `VTPRUNE_CLIENTS`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import socket

import pytest
from media import image_part
from nightly import NIGHTLY

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CLIENTS = os.path.abspath(os.environ.get("VTPRUNE_CLIENTS", sys.prefix))
DEMO = "http://localhost:8000"

_BLOCK = re.compile(
    r"(?:<!-- (not run|run by|run with): ([^\n]+) -->\n)?^```(\w*)\n(.*?)^```$", re.M | re.S
)
_SHOWN = re.compile(r"(?m)^print\(.*\)  # (.+)$")
_RUN = {"sh", "python"}
_SHOWN_ONLY = {"json", "text", "toml", "yaml"}


@dataclass(frozen=True)
class _Block:
    """A block of code of a page."""

    page: str
    line: int
    remark: str
    """Of the comment above it: `not run`, `run by`, `run with`; empty without one."""

    said: str
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def _blocks() -> Iterator[_Block]:
    for page in PAGES:
        text = page.read_text()
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start(3)) + 1
            remark, said, language, code = match.groups(default="")
            yield _Block(str(page.relative_to(ROOT)), line, remark, said, language, code)


BLOCKS = list(_blocks())


def _to_run(language: str) -> list[_Block]:
    remarks = ("", "run with")
    return [block for block in BLOCKS if block.language == language and block.remark in remarks]


def test_every_block_is_run_or_says_why_not() -> None:
    assert len(BLOCKS) == sum(page.read_text().count("\n```") for page in PAGES) / 2
    for block in BLOCKS:
        assert block.language in _RUN | _SHOWN_ONLY, f"{block}: name the language of a block"
        assert block.language in _RUN or not block.remark, block
        if block.remark == "run by":
            assert (ROOT / block.said).is_file(), block


@dataclass(frozen=True)
class _Reader:
    """Where blocks are typed: a folder with the repository's files, and the demo's address."""

    folder: Path
    port: int

    def typed(self, code: str) -> str:
        return code.replace("localhost:8000", f"localhost:{self.port}")

    def environment(self) -> dict[str, str]:
        """As after `make setup` and with `.venv` activated; the server compiles nothing."""
        path = [str(Path(sys.executable).parent), f"{CLIENTS}/bin", os.environ["PATH"]]
        words = {"PORT": str(self.port), "ARGS": "--enforce-eager", "HF_HUB_OFFLINE": "1"}
        return {**os.environ, **words, "VLLM_CPU_KVCACHE_SPACE": "1", "PATH": os.pathsep.join(path)}

    def run(self, *command: str) -> str:
        """What a command prints. It has to succeed."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    @contextmanager
    def serving(self, code: str, url: str) -> Iterator[None]:
        """A block that serves, until the address answers and then for as long as it is needed."""
        # Installing is not what is tested: make takes it as done.
        shell = 'make() { command make --old-file=setup "$@"; }\n' + self.typed(code)
        log = self.folder / "log"
        with log.open("w") as file:
            process = subprocess.Popen(
                ["bash", "-c", shell],
                cwd=self.folder,
                env=self.environment(),
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        try:
            while not _answers(url):
                assert process.poll() is None, log.read_text()[-4000:]
                time.sleep(1)
            yield
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(60)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url):
            return True
    except urllib.error.HTTPError:
        return True  # it wants a key
    except OSError:
        return False


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Reader]:
    """A reader who has typed `make serve`."""
    folder = tmp_path_factory.mktemp("reader")
    for file in ROOT.iterdir():
        (folder / file.name).symlink_to(file)
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        here = _Reader(folder, free.getsockname()[1])
    (serve,) = (block for block in _to_run("sh") if block.code == "make serve\n")
    with here.serving(serve.code, here.typed(f"{DEMO}/health")):
        yield here


def _need(block: _Block) -> None:
    """Skip a block whose package is not there."""
    if block.remark == "run with":
        python = f"{CLIENTS}/bin/python"
        asked = [python, "-c", f"import importlib.metadata as m; m.version({block.said!r})"]
        if subprocess.run(asked, capture_output=True).returncode:
            pytest.skip(f"{block.said} is not in VTPRUNE_CLIENTS")


def _commands() -> list[_Block]:
    """Those that end; the two that serve are run beside others."""
    return [each for each in _to_run("sh") if not re.match("make serve|LITELLM", each.code)]


@NIGHTLY
@pytest.mark.server
@pytest.mark.parametrize("block", _commands(), ids=str)
def test_a_command_does_what_it_says(block: _Block, reader: _Reader) -> None:
    """What a page shows behind a command is what the command prints."""
    _need(block)
    printed = reader.run("bash", "-euo", "pipefail", "-c", reader.typed(block.code))
    after = BLOCKS[BLOCKS.index(block) + 1]
    if after.page == block.page and after.language == "text":
        assert after.code == printed
    if block.code.startswith("curl"):
        shown, answer = json.loads(after.code), json.loads(printed)
        assert answer["usage"].items() >= shown["usage"].items()
        assert answer["choices"][0]["message"]["content"].startswith(" orange")
    for file in re.findall(r"\b(?:out|answers)\.jsonl", block.code):
        rows = [json.loads(line) for line in (reader.folder / file).read_text().splitlines()]
        assert rows
        assert "visual_tokens" in json.dumps(rows[0])


def _before(block: _Block) -> list[_Block]:
    """The blocks of Python that a reader of the page has typed already, and this one."""
    same = [each for each in _to_run("python") if each.page == block.page]
    return [each for each in same if not each.remark and each.line < block.line] + [block]


@NIGHTLY
@pytest.mark.server
@pytest.mark.parametrize("block", _to_run("python"), ids=str)
def test_python_prints_what_is_said(block: _Block, reader: _Reader) -> None:
    _need(block)
    if block.code.startswith("extra_body ="):
        _send(block.code, reader)
        return
    program = "\n".join(each.code for each in _before(block))
    printed = reader.run(f"{CLIENTS}/bin/python", "-c", reader.typed(program))
    assert printed.splitlines() == _SHOWN.findall(program)


def _send(code: str, reader: _Reader) -> None:
    """Ask the demo with the settings of a block."""
    names: dict[str, dict[str, object]] = {}
    exec(code, names)
    question = {"type": "text", "text": "What color is the heart?"}
    content = [image_part((ROOT / "assets" / "scene.png").read_bytes()), question]
    body = {"model": "demo", "messages": [{"role": "user", "content": content}]}
    request = urllib.request.Request(
        reader.typed(f"{DEMO}/v1/chat/completions"),
        json.dumps({**body, **names["extra_body"]}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        assert "visual_tokens" in json.load(response)["usage"]


@NIGHTLY
@pytest.mark.server
def test_litellm_gives_a_setting_a_name(reader: _Reader) -> None:
    """The page's aliases, each asked for through LiteLLM's proxy."""
    (command,) = (block for block in BLOCKS if block.code.startswith("LITELLM_"))
    (aliases,) = (
        block for block in BLOCKS if block.language == "yaml" and block.page == command.page
    )
    _need(command)
    (reader.folder / "aliases.yaml").write_text(reader.typed(aliases.code))
    proxy = "http://localhost:4000"
    with reader.serving(command.code, f"{proxy}/health/liveliness"):
        openai = _to_run("python")[0].code
        for name, kept in {"demo-whole": 256, "demo-reads": 28}.items():
            program = openai.replace(DEMO, proxy).replace('api_key="none"', 'api_key="sk-your-key"')
            program = program.replace('model="demo"', f'model="{name}"')
            program = program.replace(', extra_body={"vtprune": {"method": "adafv"}}', "")
            assert f"'kept': {kept}" in reader.run(f"{CLIENTS}/bin/python", "-c", program)
