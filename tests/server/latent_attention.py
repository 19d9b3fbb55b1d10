"""Latent attention on a CPU, by vLLM's backend that takes float32: where a CPU has AMX, vLLM's own
choice takes bfloat16 alone, and an engine in float32 does not start."""

from __future__ import annotations

__all__ = ["latent_backend"]


def latent_backend(model: str) -> str | None:
    """The backend for a small model of this name; None if its attention is not latent."""
    return "CPU_MLA" if "kimi" in model else None
