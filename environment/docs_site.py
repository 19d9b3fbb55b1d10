"""A hook of `mkdocs.yml` that chooses the repository's files that the site contains.

A page keeps its path in the repository, so its links need no change; the files that it links to or
shows are included.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take the pages of the navigation, what they lead to and the style, not all of `docs/`."""
    ours: dict[str, File] = {}
    waiting = [*_named(config["nav"]), *map(str, config["extra_css"])]
    while waiting:
        uri = waiting.pop()
        if uri in ours:
            continue
        ours[uri] = File.generated(config, uri, abs_src_path=str(ROOT / uri))
        if uri.endswith(".md"):
            waiting += _led_to(uri, (ROOT / uri).read_text())
    theme = [file for file in files if not file.abs_src_path.startswith(config["docs_dir"])]
    return Files([*theme, *ours.values()])


def _named(nav: object) -> list[str]:
    """The files that the navigation names, whatever its depth."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ()
    return [uri for part in parts for uri in _named(part)]


def _led_to(uri: str, text: str) -> list[str]:
    """The repository's files that a page links to or shows."""
    targets = [(ROOT / uri).parent / unquote(target) for target in _LINK.findall(text)]
    inside = [file.resolve() for file in targets if file.resolve().is_relative_to(ROOT)]
    return [str(file.relative_to(ROOT)) for file in inside if file.is_file()]
