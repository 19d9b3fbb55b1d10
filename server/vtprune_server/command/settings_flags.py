"""Settings of one request as flags of a command; the server validates them."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from typing import Any

__all__ = ["add_settings", "settings_of"]


def add_settings(parser: ArgumentParser) -> None:
    """Add the flags for settings to a command."""
    parser.add_argument("--method", metavar="NAME", help="how tokens are chosen")
    parser.add_argument("--rate", metavar="R", help="share of the tokens that is removed")
    parser.add_argument("--tokens", metavar="N", help="visual tokens kept of each image")
    parser.add_argument("--options", metavar="JSON", help="options of the method")


def settings_of(arguments: Namespace) -> dict[str, Any]:
    """Return the given settings in the form of a request's body."""
    settings: dict[str, Any] = {}
    if arguments.method is not None:
        settings["method"] = arguments.method
    for key in ("rate", "tokens", "options"):
        if (text := getattr(arguments, key)) is not None:
            settings[key] = _read(text)
    return settings


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
