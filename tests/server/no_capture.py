"""What vLLM's resampler of MiniCPM-V 2.6 and 4.0 asks of a GPU, where there is none.

Whether a CUDA graph is being captured, it asks a torch that may be built without CUDA, which then
raises: a prompt with a picture ends the engine, pruned or not.
"""

from __future__ import annotations

import torch

__all__ = ["capture_nothing"]


def capture_nothing() -> None:
    """Have torch answer no where it cannot know."""
    if not torch.cuda.is_available():
        torch.cuda.is_current_stream_capturing = lambda: False
