"""`vtprune methods`: list the methods that are installed, or that a server allows."""

from __future__ import annotations

import ast
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from vtprune_server.command.ask import Asked

__all__ = ["installed", "of_server"]

_GROUP = "vtprune.methods"


def installed() -> list[tuple[str, str]]:
    """Return each installed method's name and the first paragraph of its file.

    The file is parsed, not imported, because importing torch takes seconds.
    """
    found = sorted(entry_points(group=_GROUP), key=lambda entry: entry.name)
    return [(entry.name, _beginning(entry)) for entry in found]


def of_server(asked: Asked) -> list[tuple[str, str]]:
    """Return each method's name and what it does, or why the server refuses it."""
    cards = asked.get("/vtprune/methods")["methods"]
    return [
        (card["name"], card["description"] if card["allowed"] else f"refused: {card['refused']}")
        for card in cards
    ]


def _beginning(entry: EntryPoint) -> str:
    package, *inside = entry.module.split(".")
    spec = find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [Path(folder, *inside).with_suffix(".py") for folder in folders]
    source = next((file.read_text() for file in files if file.exists()), "")
    text = ast.get_docstring(ast.parse(source)) or ""
    return " ".join(text.partition("\n\n")[0].split())
