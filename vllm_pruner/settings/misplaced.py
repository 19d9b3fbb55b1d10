"""Keys of a request, or of an engine's arguments, that were probably meant for ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vllm_pruner.settings.advice import nearest
from vllm_pruner.settings.errors import shown
from vllm_pruner.settings.keys import KEY

__all__ = ["BODY", "CHATS", "misplaced", "misplaced_in", "misplaced_within", "misspelt"]

BODY = "at the top of the body"
"""Where our key stands in a body, as an error says it."""

CHATS = "allowed: /v1/chat/completions, /v1/responses, /v1/messages"
"""Where settings are read, as an error says it to a client of a route that reads none."""

_EXTRA = "extra_body"
"""An argument of OpenAI's client, which merges its content into the body; other clients send it as
it is."""

_ALIKE = 0.76
"""Least similarity of a misspelling of our key: `pruned` is one. `truncate`, 0.67, is none: it is a
key of Cohere's API, and clients of other servers send it along."""

_SURE = 0.85
"""The same where nothing else asks for pruning, so that the key may be a model's own."""

_NESTED = "_kwargs"
"""How arguments are called that HF's processors have for one modality, such as `images_kwargs`."""

_FILES = ("image_url", "video_url", "source")
"""Keys of a part of a message under which its file is described."""


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
    if key.endswith(_NESTED) and isinstance(value, Mapping) and KEY in value:
        return f"{KEY}: settings are given in {shown(key)}"
    if key != KEY and (key.lower().startswith((KEY, "prune_")) or nearest(key, [KEY], _ALIKE)):
        return f"{KEY}: {shown(key)} is given but there is no such key"
    return ""


def misspelt(kwargs: Mapping[str, Any]) -> str:
    """Return the sentence about the first of an engine's `mm_processor_kwargs` that was meant for
    ours, "" if none was."""
    if KEY not in kwargs:
        kwargs = {key: value for key, value in kwargs.items() if _is_surely_ours(key, value)}
    return misplaced_in(kwargs, "in mm_processor_kwargs")


def _is_surely_ours(key: str, value: Any) -> bool:
    if key.endswith(_NESTED):
        return isinstance(value, Mapping) and KEY in value
    return _begins_as_ours(key) or nearest(key, [KEY], _SURE) is not None


def misplaced_within(messages: Iterable[Any]) -> str:
    """Return the sentence about the first key like ours inside messages, where settings of one
    image might be expected, "" if there is none.

    Args:
        messages: those of a chat, of Anthropic's API or of the Responses API.
    """
    found = (key for holder in _holders(messages) for key in holder if _begins_as_ours(key))
    inside = next(found, None)
    if inside is None:
        return ""
    return (
        f"{KEY}: {shown(inside)} is given inside a message; allowed: {KEY} {BODY}, and for one of "
        "several images its detail"
    )


def _holders(messages: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    """Yield messages, the parts of their content, and what a part says of its file."""
    for message in messages:
        if not isinstance(message, Mapping):
            continue
        yield message
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if isinstance(part, Mapping):
                yield part
                yield from (part[name] for name in _FILES if isinstance(part.get(name), Mapping))


def _begins_as_ours(key: object) -> bool:
    return isinstance(key, str) and key.lower().startswith(KEY)
