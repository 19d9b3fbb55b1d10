"""vtprune: visual-token pruning for vLLM. Importing this loads neither torch nor vLLM."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from vllm_pruner.method import Method

__version__ = version("vtprune")
__all__ = ["__version__", "prune", "select", "select_video"]


def select(
    name: str | Method,
    *,
    keep: int,
    features: torch.Tensor,
    importance: torch.Tensor | None = None,
    projected: torch.Tensor | None = None,
    text: Sequence[torch.Tensor] | torch.Tensor | None = None,
    keys: torch.Tensor | None = None,
    received: torch.Tensor | None = None,
    received_midway: torch.Tensor | None = None,
    grid: tuple[int, int] | None = None,
    **options: object,
) -> torch.Tensor:
    """Choose the visual tokens to keep, with any installed method, outside vLLM.

    Args:
        name: of a method for images, as `--prune-method` takes it; or a `Method` itself.
        keep: tokens kept per image, 0 to N.
        features: `[B, N, D]` encoder features before projection, or `[N, D]` for one image.
        importance: `[B, N]` (or `[N]`) attention to each token. This and what follows is needed
            by some methods only; what is missing is named.
        projected: `[B, N, W]` (or `[N, W]`) the tokens in the decoder's space.
        text: for each image `[M, W]` decoder input embeddings of the question, M may be 0 and may
            differ.
        keys: `[B, N, K]` (or `[N, K]`) keys of the encoder's attention, mean over heads.
        received: `[B, N]` (or `[N]`) attention each token receives in the layer of the features.
        received_midway: the same in the encoder's middle layer.
        grid: rows and columns of tokens.
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
        keys=keys,
        received=received,
        received_midway=received_midway,
        grid=grid,
        **options,
    )


def prune(
    name: str | Method, *, keep: int, features: torch.Tensor, **inputs: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what is left of the features: `select`, with the rows beside the indices.

    A method that merges tokens makes new rows; of any other they are the kept rows of `features`.

    Args:
        name: as for `select`, and so are the other arguments, options included.
        keep: tokens kept per image.
        features: `[B, N, D]` or `[N, D]`.
        inputs: what else the method needs, and its options.

    Returns:
        int64 `[B, keep]` and rows `[B, keep, D]`, or `[keep]` and `[keep, D]`.

    Raises:
        ValueError: as for `select`.
    """
    from vllm_pruner import selection

    return selection.prune(name, keep=keep, features=features, **inputs)


def select_video(
    name: str | Method, *, keep: int, features: torch.Tensor, **options: object
) -> torch.Tensor:
    """Choose the tokens of a video to keep, outside vLLM.

    Args:
        name: `evs`, `vidcom2`, or a `Method`.
        keep: tokens kept of all frames together.
        features: `[frames, tokens, D]`, or `[videos, frames, tokens, D]`.
        options: the method's own.

    Returns:
        int64 `[keep]` or `[videos, keep]`, ascending, counting through the frames.

    Raises:
        ValueError: as for `select`.
    """
    from vllm_pruner import selection

    return selection.select_video(name, keep=keep, features=features, **options)
