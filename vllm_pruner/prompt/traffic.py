"""Count prompts with images, for `/metrics` and the log."""

from __future__ import annotations

from collections.abc import Sequence

from vllm_pruner.prompt.asked import VIDEO, Asked
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.telemetry import metrics
from vllm_pruner.telemetry.ledger import Ledger

__all__ = ["count_items"]

_UNPRUNED = "none"
_ledger = Ledger()


def count_items(asked: Sequence[Asked]) -> None:
    """Count a prompt, its images and videos, and their tokens. An image with an unknown number of
    tokens is left out of both token counts, so that their ratio is right."""
    for method in {_method(config) for each in asked for config in each.configs}:
        metrics.REQUESTS.add(method=method)
    for each in asked:
        items = metrics.VIDEOS if each.modality == VIDEO else metrics.IMAGES
        for config, original, left in zip(each.configs, each.tokens, each.kept, strict=True):
            items.add(method=_method(config))
            if config.floor != "off" and not config.off:
                metrics.FLOORED.add(method=config.method)
            if original is not None:
                metrics.ORIGINAL.add(original, method=_method(config))
                metrics.KEPT.add(left, method=_method(config))
        for plan in each.plans:
            if plan.config.resolved[0].needs_text and not plan.text and not plan.config.off:
                metrics.NO_TEXT.add()
    _ledger.note_request()


def _method(config: PruneConfig) -> str:
    return _UNPRUNED if config.off else config.method
