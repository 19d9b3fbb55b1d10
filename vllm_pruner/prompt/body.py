"""The top of a request's body, where our settings are one key: told when it was meant and is not
there.

vLLM accepts every unknown key of a body, so a misspelt one, or one where a body has no images,
would be ignored in silence. No parameter of its own is as like ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_pruner.prompt.refusal import refusal
from vllm_pruner.settings.advice import nearest
from vllm_pruner.settings.errors import shown
from vllm_pruner.settings.keys import KEY

__all__ = ["check_keys", "meant", "refuse_without_images"]

_EXTRA = "extra_body"
"""An argument of OpenAI's client, which puts what is inside at the top; others send it as it is."""

_ALLOWED = f"allowed: {KEY} at the top of the body"


def meant(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a body has of our key, and of keys that were meant for it.

    Args:
        body: of a request, or the keys in it that vLLM does not know.
    """
    return {key: value for key, value in body.items() if key == KEY or _fault(key, value)}


def check_keys(body: Mapping[str, Any]) -> None:
    """Refuse a key that was meant for ours.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    for key, value in body.items():
        if key != KEY and (found := _fault(key, value)):
            raise refusal(found)


def refuse_without_images(body: Mapping[str, Any]) -> None:
    """Refuse settings where a body cannot have images.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    check_keys(body)
    if body.get(KEY) is not None:
        raise refusal(
            f"{KEY}: settings are given to /v1/completions, whose prompts have no images; allowed: "
            "/v1/chat/completions, /v1/responses, /v1/messages"
        )


def _fault(key: str, value: Any) -> str:
    """What is wrong with a key that vLLM does not know, if it was meant for ours."""
    if key == _EXTRA and isinstance(value, Mapping) and KEY in value:
        return f"{KEY}: {_EXTRA}.{KEY} is given, which only OpenAI's client unfolds; {_ALLOWED}"
    if key != KEY and (key.lower().startswith((KEY, "prune_")) or nearest(key, [KEY])):
        return f"{KEY}: {shown(key)} is given but there is no such key; {_ALLOWED}"
    return ""
