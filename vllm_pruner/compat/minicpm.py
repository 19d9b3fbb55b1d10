"""Whether this vLLM counts the slices of MiniCPM-V's images as it cuts them.

Replaces: nothing.
Why: 0.31 knows no 4.7, and of 4.6 counts an image's tokens by the server's `max_slice_nums` and
`downsample_mode`, whatever its request says to the processor.
Relies on: nothing.
vLLM versions: 0.31.
Goes when: 0.31 goes.
"""

from __future__ import annotations

from vllm_pruner.compat.versions import at_least

__all__ = ["minicpm_known"]


def minicpm_known() -> bool:
    """Whether MiniCPM-V can be pruned on this vLLM."""
    return at_least((0, 32))
