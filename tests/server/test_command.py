"""`vtprune`: help at once, examples that run, one sentence where something is wrong."""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from media import PHOTOS
from PIL import Image
from vllm_server import Server
from vtprune_server.command.parser import EXAMPLES

from vllm_pruner import methods
from vllm_pruner.settings.defaults import DEFAULT_METHOD


def _run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vtprune_server.command", *arguments]
    return subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, timeout=240
    )


def _example(name: str) -> list[str]:
    """What the help of a command ends in."""
    program, *arguments = shlex.split(_run(name, "--help").stdout.strip().splitlines()[-1])
    assert (program, arguments[0]) == ("vtprune", name)
    return arguments


@pytest.mark.parametrize("name", EXAMPLES)
def test_help_is_there_at_once_and_ends_in_an_example(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = _run(name, "--help")
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 1, "processor time"
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: vtprune {name} ")
    assert done.stdout.endswith(f"example:\n  {EXAMPLES[name]}\n")


def test_help_names_every_command() -> None:
    told = _run("--help").stdout
    assert all(name in told for name in EXAMPLES)
    assert told.endswith("example:\n  vtprune methods\n")


def test_methods_are_listed_without_a_server() -> None:
    lines = _run(*_example("methods")).stdout.splitlines()
    assert [line.split()[0] for line in lines] == methods.names()
    assert all(len(line.split()) > 4 for line in lines)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["estimate", "nothing.jpg"], "nothing.jpg cannot be read (No such file or directory)"),
        (["explain", str(PHOTOS[0]), "--url", "http://localhost:9"], "no answer from http://local"),
        (["methods", "--url", "localhost"], "no answer from localhost"),
        (["evaluate", "--items", "1", "--url", "http://localhost:9"], "localhost:9"),
    ],
    ids=["file", "server", "url", "evaluate"],
)
def test_what_is_wrong_is_one_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vtprune_server.command", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.server
class TestOnAServer:
    """The examples, as they stand in the help."""

    @pytest.fixture
    def run(self, pruned: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        shutil.copy(PHOTOS[0], tmp_path / "photo.jpg")
        monkeypatch.chdir(tmp_path)
        return lambda *arguments: _run(*arguments, VTPRUNE_URL=pruned.url)

    def test_estimate(self, run) -> None:
        done = run(*_example("estimate"))
        assert done.stdout == "photo.jpg  58 of 576 visual tokens (10.1%)\n"
        several = run("estimate", "photo.jpg", "photo.jpg", "--tokens", "64").stdout
        assert several.splitlines()[-1].split() == [
            "all",
            "128",
            "of",
            "1152",
            "visual",
            "tokens",
            "(11.1%)",
        ]

    def test_explain(self, run, tmp_path: Path) -> None:
        done = run(*_example("explain"))
        assert "photo.jpg  adafv keeps 64 of 576 visual tokens" in done.stdout
        assert Image.open(tmp_path / "kept.png").size == (336, 336)

    def test_methods(self, run, pruned: Server) -> None:
        lines = run("methods", "--url", pruned.url).stdout.splitlines()
        assert {line.split()[0] for line in lines} == set(methods.names())

    def test_a_setting_is_refused_in_the_servers_words(self, run) -> None:
        done = run("estimate", "photo.jpg", "--rate", "90")
        assert done.returncode == 1
        assert "rate is 90; it should be less than 1; for 90 % write 0.9" in done.stderr

    def test_evaluate(self, run, tmp_path: Path) -> None:
        done = run(*_example("evaluate"))
        assert done.returncode == 0, done.stderr
        assert len((tmp_path / "evaluation.jsonl").read_text().splitlines()) == 4
        assert DEFAULT_METHOD in done.stdout

    def test_tune(self, run, tmp_path: Path) -> None:
        done = run(*_example("tune"))
        assert done.returncode == 0, done.stderr
        *told, command = done.stdout.splitlines()
        assert command.startswith("vllm serve ") and Path(shlex.split(command)[2]).is_dir()
        assert f" --plugin vtprune --prune-method {DEFAULT_METHOD} --prune-rate 0." in command
        assert [line for line in told if line.startswith("random kept ")]
        assert (tmp_path / "evaluation.png").stat().st_size > 1000
