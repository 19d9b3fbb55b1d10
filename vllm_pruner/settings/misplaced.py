"""Keys of a request that were probably meant for ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_pruner.settings.advice import nearest
from vllm_pruner.settings.errors import shown
from vllm_pruner.settings.keys import KEY

__all__ = ["BODY", "CHATS", "misplaced", "misplaced_in"]

BODY = "at the top of the body"
"""Where our key stands in a body, as an error says it."""

CHATS = "allowed: /v1/chat/completions, /v1/responses, /v1/messages"
"""Where settings are read, as an error says it to a client of a route that reads none."""

_EXTRA = "extra_body"
"""An argument of OpenAI's client, which merges its content into the body; other clients send it as
it is."""


def misplaced_in(body: Mapping[str, Any], place: str = BODY) -> str:
    """Return the sentence about the first key that was probably meant for ours, "" if none was.

    Args:
        body: the keys, with their values.
        place: where ours stands among them, as the error says it.
    """
    found = (misplaced(key, value) for key, value in body.items() if key != KEY)
    return next((f"{each}; allowed: {KEY} {place}" for each in found if each), "")


def misplaced(key: str, value: Any) -> str:
    """Return what is wrong with a key if it was probably meant for ours, else ""."""
    if key == _EXTRA and isinstance(value, Mapping) and KEY in value:
        return f"{KEY}: {_EXTRA}.{KEY} is given, which only OpenAI's client unfolds"
    if key != KEY and (key.lower().startswith((KEY, "prune_")) or nearest(key, [KEY])):
        return f"{KEY}: {shown(key)} is given but there is no such key"
    return ""
