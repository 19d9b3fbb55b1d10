"""vLLM's own pruning of videos, `--video-pruning-rate`, and the rule that no video is pruned by
both: with it, vtprune leaves videos alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vllm_pruner.settings.advice import VIDEO_RATE
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import SettingError

__all__ = ["InTree", "check_owner"]


@dataclass(frozen=True, slots=True)
class InTree:
    """How vLLM prunes the videos of an engine."""

    rate: float
    """Fraction of a video's visual tokens removed, above 0."""

    method: str
    """vLLM's name of its method: `evs` or `vidcom2`."""

    def start_fault(self, config: PruneConfig) -> SettingError | None:
        """Return what is wrong with the operator's settings beside it, or None."""
        if config.video_rate == 0.0:
            return None
        said = "not set" if config.video_rate is None else f"{config.video_rate:g}"
        allowed, beside = "0 for one of the two", ("video_rate", said)
        found = SettingError("video_pruning_rate", f"{self.rate:g}", allowed, beside=beside)
        found.advice = f"to have vLLM prune videos and vtprune images: {VIDEO_RATE} 0"
        return found


def check_owner(in_tree: InTree | None, requested: object) -> None:
    """Refuse a request's settings for videos where vLLM prunes them.

    Args:
        in_tree: how vLLM prunes videos; None if it leaves them whole.
        requested: the request's settings, valid otherwise.

    Raises:
        ConfigError: one of them would have vtprune prune videos too.
    """
    if in_tree is None or not isinstance(requested, Mapping):
        return
    why = f", but vLLM prunes the videos of this server, by {in_tree.method} at {in_tree.rate:g}"
    if rate := requested.get("video_rate"):
        raise SettingError("video_rate", f"{rate:g}", "0", why)
    if (method := requested.get("video_method")) is not None:
        raise SettingError("video_method", repr(method), "none", why)
