"""Our key at the top level of a request's body, and keys that were probably meant for it.

vLLM accepts every unknown key of a body, so a misspelt key, or our key in a body that cannot have
images, would be silently ignored. None of vLLM's own parameters resembles our key closely enough to
be mistaken for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_pruner.prompt.refusal import answered, refusal, wishes_refusal
from vllm_pruner.settings.keys import KEY
from vllm_pruner.settings.misplaced import (
    BODY,
    CHATS,
    misplaced,
    misplaced_in,
    misplaced_within,
)
from vllm_pruner.settings.wishes import apart

__all__ = ["check_beside", "check_keys", "meant", "refuse_without_images"]

_BESIDE = ("vllm_xargs", "chat_template_kwargs", "media_io_kwargs")
"""vLLM's own keys of a body that hold others', without a look at their names."""


def meant(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return our key and keys that were probably meant for it, with their values.

    Args:
        body: a body of Anthropic's API.

    Raises:
        VLLMValidationError: a 400 for the client: it asks for what the answer has no place for, or
            one of its messages holds our key.
    """
    _refuse(misplaced_within(body.get("messages", ())))
    with answered():
        wishes, _ = apart(body.get(KEY))
    if wishes is not None:
        raise wishes_refusal()
    return {key: value for key, value in body.items() if key == KEY or misplaced(key, value)}


def check_keys(body: Mapping[str, Any], place: str = BODY) -> None:
    """Refuse a key that was probably meant for ours.

    Args:
        body: the keys, with their values.
        place: where ours stands among them, as the error says it.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    _refuse(misplaced_in(body, place))


def check_beside(request: Any, messages: list[Any]) -> None:
    """Refuse our key where a body holds others' keys: in its messages, or what vLLM takes along.

    Args:
        request: vLLM's.
        messages: its messages.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    _refuse(misplaced_within(messages))
    for name in _BESIDE:
        held = getattr(request, name, None) or {}
        if KEY in held:
            raise refusal(f"{KEY}: settings are given in {name}; allowed: {KEY} {BODY}")
        check_keys(held)


def _refuse(found: str) -> None:
    """Raise the error for a sentence, unless it is empty."""
    if found:
        raise refusal(found)


def refuse_without_images(body: Mapping[str, Any]) -> None:
    """Refuse settings where a body cannot have images.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    check_keys(body)
    if body.get(KEY) is not None:
        raise refusal(
            f"{KEY}: settings are given to /v1/completions, whose prompts have no images; {CHATS}"
        )
