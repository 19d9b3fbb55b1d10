"""Counts prompts with images, for `/metrics` and the log."""

from __future__ import annotations

from collections.abc import Sequence

from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.telemetry import metrics
from vllm_pruner.telemetry.ledger import Ledger

__all__ = ["count_images"]

_UNPRUNED = "none"
_ledger = Ledger()


def count_images(
    configs: Sequence[PruneConfig],
    tokens: Sequence[int | None],
    kept: Sequence[int],
    plans: Sequence[ImagePlan],
) -> None:
    """Count a prompt, its images and their tokens.

    Args:
        configs: the settings of each image.
        tokens: the visual tokens of each image, unpruned. An image whose number is not known enters
            neither token count, so that their ratio is right.
        kept: how many of them are in the prompt.
        plans: the plan of each image; none if nothing is pruned.
    """
    methods = [_UNPRUNED if config.off else config.method for config in configs]
    for method in set(methods):
        metrics.REQUESTS.add(method=method)
    for method, original, left in zip(methods, tokens, kept, strict=True):
        metrics.IMAGES.add(method=method)
        if original is not None:
            metrics.ORIGINAL.add(original, method=method)
            metrics.KEPT.add(left, method=method)
    for plan in plans:
        if plan.config.resolved[0].needs_text and not plan.text and not plan.config.off:
            metrics.NO_TEXT.add()
    _ledger.note_request()
