"""Selection outside vLLM: run a method on tensors.

Implements `vllm_pruner.select`, `prune` and `select_video`. Models served by vLLM call the same
`Method.choose`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from vtprune_kernels import gather_rows

from vllm_pruner import methods
from vllm_pruner.methods.arguments import check_arguments
from vllm_pruner.methods.base import ALLOWED, Method, VisualTokens
from vllm_pruner.settings.validation import parse_options

__all__ = ["prune", "select", "select_video"]


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
        name: a method for images, as in `--prune-method`, or a `Method` itself.
        keep: tokens kept per image, 0 to N.
        features: `[B, N, D]` encoder features before projection, or `[N, D]` for one image.
        importance: `[B, N]` (or `[N]`) attention to each token. Only some methods need this and
            the following inputs; the error names a missing one.
        projected: `[B, N, W]` (or `[N, W]`) the tokens in the decoder's embedding space.
        text: `[M, W]` for each image, the decoder's input embeddings of the question; M may be 0
            and may differ between images.
        keys: `[B, N, K]` (or `[N, K]`) keys of the encoder's attention, mean over heads.
        received: `[B, N]` (or `[N]`) attention each token receives in the layer of the features.
        received_midway: the same in the layer at 3/8 of the encoder's depth.
        grid: rows and columns of tokens.
        options: options of the method, such as `important_ratio=0.5`.

    Returns:
        int64 `[B, keep]` (or `[keep]`), ascending. Equal input gives equal output in any batch.

    Raises:
        ValueError: an unknown method or option, a value out of range, or shapes that do not fit;
            the message says what is allowed.
    """
    inputs = {
        "importance": importance,
        "projected": projected,
        "text": text,
        "keys": keys,
        "received": received,
        "received_midway": received_midway,
        "grid": grid,
    }
    return prune(name, keep=keep, features=features, **inputs, **options)[0]


def prune(
    name: str | Method, *, keep: int, features: torch.Tensor, **inputs: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run `select` and return the kept rows with the indices.

    The rows are those of `features` at the indices, or merged rows if the method merges tokens.

    Args:
        name: as for `select`.
        keep: tokens kept per image, 0 to N.
        features: `[B, N, D]` or `[N, D]`.
        inputs: the other arguments of `select`, the method's options included.

    Returns:
        int64 `[B, keep]` and rows `[B, keep, D]`, or `[keep]` and `[keep, D]`.

    Raises:
        ValueError: as for `select`.
    """
    method = methods.get(name, methods.GROUP) if isinstance(name, str) else name
    if features.dim() not in (2, 3):
        raise ValueError(
            f"features has shape {tuple(features.shape)}; allowed: [B, N, D] or [N, D]"
        )
    fields = {need: inputs.pop(need, None) for need in map(str, ALLOWED)}
    single = features.dim() == 2
    if single:
        features = features.unsqueeze(0)
        if fields["text"] is not None:
            fields["text"] = [torch.as_tensor(fields["text"])]
        fields = {k: v[None] if isinstance(v, torch.Tensor) else v for k, v in fields.items()}
    elif fields["text"] is not None:
        fields["text"] = list(fields["text"])
    index, rows = _run(method, keep, VisualTokens(features, **fields), inputs, single)
    return (index[0], rows[0]) if single else (index, rows)


def select_video(
    name: str | Method, *, keep: int, features: torch.Tensor, **options: object
) -> torch.Tensor:
    """Choose the tokens of a video to keep, outside vLLM.

    Args:
        name: `evs`, `vidcom2`, or a `Method`.
        keep: tokens kept of all frames together.
        features: `[frames, tokens, D]`, or `[videos, frames, tokens, D]`.
        options: options of the method.

    Returns:
        int64 `[keep]` or `[videos, keep]`, ascending: indices into `frames * tokens`.

    Raises:
        ValueError: as for `select`.
    """
    method = methods.get(name, methods.VIDEO_GROUP) if isinstance(name, str) else name
    if features.dim() not in (3, 4):
        raise ValueError(
            f"features has shape {tuple(features.shape)}; allowed: [videos, frames, tokens, D] or "
            "[frames, tokens, D]"
        )
    single = features.dim() == 3
    videos = features.unsqueeze(0) if single else features
    tokens = VisualTokens(videos.flatten(1, 2), frames=videos.shape[1])
    index, _ = _run(method, keep, tokens, options, single)
    return index[0] if single else index


def _run(
    method: Method, keep: int, tokens: VisualTokens, options: dict[str, Any], single: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    parsed = parse_options(method, options)
    check_arguments(method, keep, tokens, single)
    kept = method.choose(tokens, keep, parsed)
    rows = gather_rows([tokens.features], kept.index)[0] if kept.rows is None else kept.rows
    return kept.index, rows
