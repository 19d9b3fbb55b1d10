"""vtprune: visual-token pruning for vLLM. Importing this loads neither torch nor vLLM."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

__version__ = version("vtprune")
__all__ = ["__version__", "select"]


def select(
    name: str,
    *,
    keep: int,
    features: torch.Tensor,
    importance: torch.Tensor | None = None,
    projected: torch.Tensor | None = None,
    text: Sequence[torch.Tensor] | torch.Tensor | None = None,
    **options: object,
) -> torch.Tensor:
    """Choose the visual tokens to keep, with any registered method, outside vLLM.

    Args:
        name: `vispruner`, `adafv`, `attention`, `uniform`, `random`.
        keep: tokens kept per image, 0 to N.
        features: `[B, N, D]` encoder features before projection, or `[N, D]` for one image.
        importance: `[B, N]` (or `[N]`) attention to each token; not every method needs it.
        projected: `[B, N, W]` (or `[N, W]`) the tokens in the decoder's space, if text-aware.
        text: for each image `[M, W]` decoder input embeddings of the question, M may be 0 and may
            differ, if text-aware.
        options: the method's own, such as `important_ratio=0.5`.

    Returns:
        int64 `[B, keep]` (or `[keep]`), ascending. Equal input gives equal output in any batch.

    Raises:
        ValueError: an unknown method or option, a value out of range, or shapes that do not fit;
            the message says what is allowed.
    """
    from vllm_pruner import selection

    return selection.select(
        name,
        keep=keep,
        features=features,
        importance=importance,
        projected=projected,
        text=text,
        **options,
    )
