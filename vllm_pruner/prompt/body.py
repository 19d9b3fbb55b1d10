"""Our key at the top level of a request's body, and keys that were probably meant for it.

vLLM accepts every unknown key of a body, so a misspelt key, or our key in a body that cannot have
images, would be silently ignored. None of vLLM's own parameters resembles our key closely enough to
be mistaken for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_pruner.prompt.refusal import answered, refusal, wishes_refusal
from vllm_pruner.settings.advice import nearest
from vllm_pruner.settings.errors import shown
from vllm_pruner.settings.keys import KEY
from vllm_pruner.settings.wishes import apart

__all__ = ["check_keys", "meant", "refuse_without_images"]

_EXTRA = "extra_body"
"""An argument of OpenAI's client, which merges its content into the body; other clients send it as
it is."""

_BODY = "at the top of the body"


def meant(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return our key and keys that were probably meant for it, with their values.

    Args:
        body: a body of Anthropic's API.

    Raises:
        VLLMValidationError: a 400 for the client: it asks for what the answer has no place for.
    """
    with answered():
        wishes, _ = apart(body.get(KEY))
    if wishes is not None:
        raise wishes_refusal()
    return {key: value for key, value in body.items() if key == KEY or _fault(key, value)}


def check_keys(body: Mapping[str, Any], place: str = _BODY) -> None:
    """Refuse a key that was probably meant for ours.

    Args:
        body: the keys, with their values.
        place: where ours stands among them, as the error says it.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    for key, value in body.items():
        if key != KEY and (found := _fault(key, value)):
            raise refusal(f"{found}; allowed: {KEY} {place}")


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
    """Return what is wrong with an unknown key if it was probably meant for ours, else ""."""
    if key == _EXTRA and isinstance(value, Mapping) and KEY in value:
        return f"{KEY}: {_EXTRA}.{KEY} is given, which only OpenAI's client unfolds"
    if key != KEY and (key.lower().startswith((KEY, "prune_")) or nearest(key, [KEY])):
        return f"{KEY}: {shown(key)} is given but there is no such key"
    return ""
