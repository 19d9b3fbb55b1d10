"""Settings of a request whose answer is a vector or a score and no text: `/v1/embeddings`,
`/pooling`, `/classify`, `/score`, `/rerank`. They are read as those of a chat are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vllm_pruner.prompt.body import check_beside
from vllm_pruner.prompt.chat import requested as requested_by_chat
from vllm_pruner.prompt.levels import levels_within
from vllm_pruner.prompt.refusal import refusal
from vllm_pruner.settings.detail import AUTO
from vllm_pruner.settings.keys import KEY, settings_in

if TYPE_CHECKING:
    from vllm.config import ModelConfig

__all__ = ["requested"]


def requested(model_config: ModelConfig, request: Any) -> Any:
    """Return a request's settings; None if it has none or if this server does not prune.

    Raises:
        VLLMValidationError: a 400 for the client.
        GenerationError: a 500, if a method of another package cannot read its options.
    """
    if settings_in(model_config.multimodal_config) is None:
        return None
    messages = getattr(request, "messages", None)
    if isinstance(messages, list) and all(isinstance(each, dict) for each in messages):
        return requested_by_chat(model_config, request, messages)
    check_beside(request, _conversations(vars(request).values()))
    # Levels go along as a list of one prompt's images, and here each image may be a prompt.
    found = set(levels_within(vars(request))) - {AUTO}
    if found:
        raise refusal(
            f"{KEY}: image_url.detail is {found.pop()!r} beside several prompts; "
            f"allowed: {AUTO}, or settings in {KEY}"
        )
    return requested_by_chat(model_config, request, [])


def _conversations(values: Iterable[Any]) -> list[Any]:
    """Return what has content as a message has, such as a document, alone or in a list."""
    each = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return [one for one in each if isinstance(one, Mapping) and "content" in one]
