"""Images and videos that another server rendered, as `/inference/v1/generate` gets them.

What is pruned carries its plan. What is not is the same to the engine whether the other server was
asked for all of it (rate 0) or knows nothing of pruning, and so would be served unpruned without a
word. So a server of ours marks what it leaves whole, and what has neither is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFieldElem,
    MultiModalKwargsItem,
)

from vllm_pruner.prompt.asked import IMAGE, VIDEO
from vllm_pruner.prompt.refusal import refusal
from vllm_pruner.settings.keys import PLAN_SETTINGS, WHOLE
from vllm_pruner.settings.server import ServerConfig

__all__ = ["checked", "marked"]

_PRUNED = (IMAGE, VIDEO)
_MARK = MultiModalFieldElem(
    torch.ones(1, dtype=torch.uint8), MultiModalBatchedField(keep_on_cpu=True)
)
"""On the CPU: what stays there also goes to an engine whose encoder is elsewhere."""


def marked(engine_input: Any) -> Any:
    """Return the engine's input with a mark on each image and video that has no plan."""
    items = engine_input.get("mm_kwargs")
    if not items:
        return engine_input
    those = {name: [_marked(item) for item in items[name]] for name in _PRUNED if name in items}
    return {**engine_input, "mm_kwargs": {**items, **those}}


def _marked(item: MultiModalKwargsItem | None) -> MultiModalKwargsItem | None:
    if item is None or PLAN_SETTINGS in item:
        return item
    return MultiModalKwargsItem({**item, WHOLE: _MARK})


def checked(config: ServerConfig, items: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the items that came, by modality, without marks.

    Args:
        config: the operator's settings; where these never prune, nothing is refused.
        items: with their fields, or None for one that the engine has.

    Raises:
        VLLMValidationError: a 400: an image or video was rendered by a server without vtprune.
    """
    prunes = not config.off or config.rate_under_load is not None
    for modality in _PRUNED:
        for place, item in enumerate(items.get(modality, ())):
            if item is None:
                continue
            is_whole = item.pop(WHOLE, None) is not None
            if prunes and not is_whole and PLAN_SETTINGS not in item:
                raise _foreign(modality, place)
    return items


def _foreign(modality: str, place: int) -> Exception:
    return refusal(
        f"features: {modality} {place} was rendered without vtprune, so that it would be served "
        "unpruned; allowed: what a server with --plugin vtprune rendered, at rate 0 too",
        parameter="features",
    )
