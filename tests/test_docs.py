"""The site that `make docs` builds, and the commands that its pages tell a reader to type."""

from __future__ import annotations

import ast
import re
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
FOLDERS = ("docker", "evaluate", "kernels", "loadtests", "server", "demo", "demo/llava")
TRAINED = ("demo/qwen", "demo/reader", "demo/qwen-reader")
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / folder / "README.md" for folder in (*FOLDERS, *TRAINED)),
]
_PLAIN = re.compile(r"\A(?:[A-Z_]+=\S* )*(make|vtprune|vllm serve) ")


class _Page(HTMLParser):
    """What a built page leads to, what it loads, and where it can be entered."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value is not None}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        is_loaded = tag == "link" and found.get("rel") in ("stylesheet", "icon", "preconnect")
        self.loaded += [found["href"]] if is_loaded else []
        self.loaded += [found["src"]] if "src" in found else []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built; a link or a page of the navigation that leads nowhere ends the build."""
    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    return folder


@pytest.fixture(scope="module")
def built(site: Path) -> dict[Path, _Page]:
    return {file: _Page(file.read_text()) for file in site.rglob("*.html")}


def test_every_page_is_there(site: Path) -> None:
    for page in PAGES:
        place = page.relative_to(ROOT)
        folder = place.parent if place.name == "README.md" else place.with_suffix("")
        assert (site / folder / "index.html").exists(), place


def test_links_and_anchors_lead_somewhere(site: Path, built: dict[Path, _Page]) -> None:
    followed = 0
    for file, page in built.items():
        base = site if file.name == "404.html" else file.parent
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or link.startswith("/"):
                continue
            target = (base / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{link} in {file}"
            anchored = parts.fragment and target in built
            assert not anchored or parts.fragment in built[target].anchors, f"{link} in {file}"
            followed += 1
    assert followed > 500


def test_nothing_is_loaded_from_elsewhere(site: Path, built: dict[Path, _Page]) -> None:
    """Pages, and what style sheets name; the scripts are one bundle, watched in a browser once."""
    for file, page in built.items():
        assert not [each for each in page.loaded if urlsplit(each).netloc], file
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:@import\s+|url\()[\"']?https?:", sheet.read_text()), sheet


def _written(page: Path) -> Iterator[str]:
    """The commands of a page, in blocks and in sentences, each on one line."""
    text = page.read_text()
    for block in re.findall(r"(?ms)^```\w*\n(.*?)^```", text):
        yield from re.sub(r"\\\n\s*", "", block).splitlines()
    for inline in re.findall(r"`([^`]+)`", re.sub(r"(?ms)^```.*?^```", "", text)):
        yield " ".join(inline.split())


def _commands(program: str) -> list[tuple[str, list[str]]]:
    """Where a program is called, and with which words."""
    found = []
    for page in PAGES:
        for line in _written(page):
            match = _PLAIN.match(f"{line} ")
            words = shlex.split(line[match.end(1) :], comments=True) if match else []
            if words and match and match[1] == program:
                found.append((f"{page.relative_to(ROOT)}: {line}", words))
    return found


def _recipe(target: str) -> str:
    """What make does for a target."""
    match = re.search(rf"(?m)^{target}:.*\n((?:\t.*\n)*)", MAKEFILE)
    assert match, f"make {target}"
    return match[1]


def _flags(script: Path) -> set[str]:
    """Every flag that a script's text, or a neighbour's that it imports, adds to a parser."""
    tree = ast.parse(script.read_text())
    names = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    neighbours = [script.with_name(f"{name}.py") for name in names]
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    flags = {text for text in texts if isinstance(text, str) and text.startswith("--")}
    return flags.union(*(_flags(each) for each in neighbours if each.exists()))


def test_make_has_the_targets_and_their_scripts_the_flags() -> None:
    commands = _commands("make")
    assert len(commands) > 40
    for where, (target, *variables) in commands:
        recipe = _recipe(target)
        for variable in variables:
            name, is_set, value = variable.partition("=")
            assert is_set and f"$({name})" in recipe, where
            for script in re.findall(r"python\)? ((?:\w+/)+\w+\.py)", recipe):
                asked = {word.partition("=")[0] for word in value.split() if word[:2] == "--"}
                assert asked <= _flags(ROOT / script), where


def _parse(parser: ArgumentParser, words: list[str], where: str) -> None:
    try:
        parser.parse_args(words)
    except SystemExit:
        pytest.fail(f"{where}: what argparse says is above")


def _arguments_of(recipe: str) -> list[tuple[str, list[str]]]:
    """What pages give in ARGS to the targets that hand it on to a command."""
    return [
        (where, shlex.split(variable.removeprefix("ARGS=")))
        for where, (target, *variables) in _commands("make")
        for variable in variables
        if recipe in _recipe(target) and variable.startswith("ARGS=")
    ]


def test_vtprune_takes_what_its_pages_say() -> None:
    from vtprune_evaluate.__main__ import _parser as accuracy
    from vtprune_server.command.parser import _ACCURACY, EXAMPLES, _parser

    commands = _commands("vtprune")
    assert len(commands) > 4
    for where, (name, *words) in commands:
        assert name in EXAMPLES, where
        if not words:
            continue  # a sentence that names it
        parser = accuracy(None, "") if name in _ACCURACY else _parser()
        _parse(parser, [_ACCURACY.get(name, name), *words], where)
    for where, words in _arguments_of("vtprune_evaluate run"):
        _parse(accuracy(None, ""), ["run", *words], where)


def test_vllm_serve_takes_what_pages_say() -> None:
    from vllm.entrypoints.cli.serve import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    commands = _commands("vllm serve") + _arguments_of("/vllm serve")
    assert len(commands) > 5
    parser = make_arg_parser(FlexibleArgumentParser())
    for where, words in commands:
        _parse(parser, words, where)
