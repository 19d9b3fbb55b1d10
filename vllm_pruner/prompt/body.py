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
from vllm_pruner.settings.misplaced import BODY, CHATS, misplaced, misplaced_in
from vllm_pruner.settings.wishes import apart

__all__ = ["check_keys", "meant", "refuse_without_images"]


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
    return {key: value for key, value in body.items() if key == KEY or misplaced(key, value)}


def check_keys(body: Mapping[str, Any], place: str = BODY) -> None:
    """Refuse a key that was probably meant for ours.

    Args:
        body: the keys, with their values.
        place: where ours stands among them, as the error says it.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    if found := misplaced_in(body, place):
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
