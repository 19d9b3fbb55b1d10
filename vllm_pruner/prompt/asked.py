"""The images or the videos of one prompt: their settings, their plans, and what was kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm.multimodal.parse import ImageSize

    from vllm_pruner.plan import ImagePlan
    from vllm_pruner.settings.config import PruneConfig

__all__ = ["IMAGE", "VIDEO", "Asked", "report"]

IMAGE, VIDEO = "image", "video"
"""vLLM's names for the two modalities."""


@dataclass(slots=True)
class Asked:
    """All items of one modality, in the order of the prompt."""

    modality: str
    configs: list[PruneConfig]
    """The settings of each."""

    plans: list[ImagePlan]
    """The plan of each; empty if none of them is pruned."""

    tokens: list[int | None] = field(default_factory=list)
    """Visual tokens of each, unpruned; None if not known. For videos, it is filled in once they
    have been processed."""

    kept: list[int] = field(default_factory=list)
    """Visual tokens kept of each, filled in once the prompt is made."""

    sizes: Sequence[ImageSize | None] = ()
    """Width and height of each image in pixels; None if not known. Empty for videos."""


def report(asked: Sequence[Asked], rate: float | None = None) -> dict[str, Any] | None:
    """Return the counts of a prompt, or None if an image's number of tokens is not known.

    Args:
        asked: the images and the videos.
        rate: the server's own rate, if that moves and the request has it; else None.

    Returns:
        `original` and `kept` visual tokens; the same for its videos alone under `video`, if it has
        any; `floor` if a floor raised what an image keeps; `rate` if an item has that rate; and the
        names of the `method`s.
    """
    counts = {each.modality: _counts(each) for each in asked}
    if None in counts.values():
        return None
    known = [count for count in counts.values() if count is not None]
    total: dict[str, Any] = {
        name: sum(count[name] for count in known) for name in ("original", "kept")
    }
    if VIDEO in counts:
        total["video"] = counts[VIDEO]
    methods = {config.method for each in asked for config in each.configs if not config.off}
    floors = {config.floor for each in asked for config in each.configs} - {"off"}
    if floors:  # one at most, a request has no more
        total["floor"] = floors.pop()
    if rate is not None and any(_has(each, rate) for each in asked):
        total["rate"] = rate
    return {**total, "method": ", ".join(sorted(methods))}


def _has(asked: Asked, rate: float) -> bool:
    """An image with print, small detail or boxes has the rate as well, as far as it holds there."""
    return asked.modality == IMAGE or any(config.rate == rate for config in asked.configs)


def _counts(asked: Asked) -> dict[str, int] | None:
    known = [count for count in asked.tokens if count is not None]
    if len(known) < len(asked.tokens):
        return None
    return {"original": sum(known), "kept": sum(asked.kept)}
