"""Read how vLLM itself prunes videos.

Replaces: nothing.
Relies on: `video_pruning_rate` and, from 0.32 on, `video_pruning_method` of `EngineArgs` and
`MultiModalConfig`.
vLLM versions: 0.31 to 0.33; `in_tree_known` from 0.32 on.
Goes when: nothing in vLLM prunes videos beside us.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_pruner.compat.versions import at_least
from vllm_pruner.settings.in_tree import InTree

if TYPE_CHECKING:
    from vllm.config.multimodal import MultiModalConfig
    from vllm.engine.arg_utils import EngineArgs

__all__ = ["in_tree", "in_tree_known"]


def in_tree(holder: EngineArgs | MultiModalConfig | None) -> InTree | None:
    """Return how vLLM prunes videos, or None if it leaves them whole.

    Args:
        holder: vLLM's arguments or its configuration; None for a text-only model.
    """
    if holder is None or not holder.video_pruning_rate:
        return None
    return InTree(holder.video_pruning_rate, getattr(holder, "video_pruning_method", "evs"))


def in_tree_known() -> bool:
    """Whether the rows that this vLLM makes of a pruned video are those that `worker.in_tree`
    reads."""
    return at_least((0, 32))
