"""What a selection saw and chose, for a person to look at: called by name on every worker.

Nothing of this runs while requests are answered, so it may copy to the host.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from vtprune_kernels import implementation, text_relevance

from vllm_pruner.methods.base import VisualTokens
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import KEY, PruneConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vllm_pruner.layout.crop_layout import CropLayout
    from vllm_pruner.worker.model import PrunedModel

__all__ = ["WORKER_METHODS"]

_SHARPNESS = 100.0
"""Of the softmax that shows relevance: AdaFV's, whatever the method makes of the text."""


def explain(model: PrunedModel, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Select for images as a request would.

    Args:
        model: this worker's.
        items: for each image the fields that the processor made, as `(dtype, shape, bytes)`.

    Returns:
        For each image its `settings`, `original` count, `kept` positions and `views`: the base
        crop, and the raster of all others. A view has its grid of `crops`, the first and last
        `rows` and `columns` of patches that are no padding, kept patches, `importance` and
        `relevance`.
    """
    return [
        _explain_one(model, {name: _unpack(*it) for name, it in item.items()}) for item in items
    ]


def _unpack(dtype: str, shape: list[int], data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(data, dtype=dtype).reshape(shape).copy())


@torch.no_grad()
def _explain_one(model: PrunedModel, item: dict[str, torch.Tensor]) -> dict[str, Any]:
    fields: dict[str, Any] = {name: tensor.unsqueeze(0) for name, tensor in item.items()}
    pixels = fields["pixel_values"]
    fields["pixel_values"] = pixels.to(model.vision_tower.device, model.vision_tower.dtype)
    if KEY not in fields:  # rate 0: kept whole, by a method that needs nothing
        fields |= {name: field.unsqueeze(0) for name, field in _WHOLE.fields().items()}
    settings = ImagePlan.pop_all(dict(fields))[0].config
    with _watched(model) as selections:
        model.embed_multimodal(**fields)
    ((tokens, kept, layout),) = selections
    return {
        "settings": {} if settings == _WHOLE.config else settings.model_dump(exclude_none=True),
        "original": layout.tokens,
        "kept": kept[0].tolist(),
        "views": _views(model, tokens, kept[0], layout),
    }


_WHOLE = ImagePlan(PruneConfig(method="uniform", rate=1e-9), ImagePlan.ANONYMOUS)


@contextmanager
def _watched(
    model: PrunedModel,
) -> Iterator[list[tuple[VisualTokens, torch.Tensor, CropLayout]]]:
    """Fill the yielded list with what is selected from and what is kept."""
    selections: list[tuple[VisualTokens, torch.Tensor, CropLayout]] = []
    before = model.on_selection
    model.on_selection = lambda *selection: selections.append(selection)
    try:
        yield selections
    finally:
        model.on_selection = before


def _views(
    model: PrunedModel, tokens: VisualTokens, kept: torch.Tensor, layout: CropLayout
) -> list[dict[str, Any]]:
    """The base crop, and the raster of the other crops if there are any."""
    vision: Any = model.config.vision_config
    side = vision.image_size // vision.patch_size
    first = side * side - layout.base  # a SigLIP tower with the strategy "default" lacks a patch
    patches, newline = layout.patches_at(kept)
    chosen = patches[~newline]
    scores = {"importance": tokens.importance, "relevance": _relevance(tokens)}
    base = {
        "crops": (0, 0),
        "rows": (0, side),
        "columns": (0, side),
        "kept": (chosen[chosen < layout.base] + first).tolist(),
        **{name: _row(score, 0, layout.base, first) for name, score in scores.items()},
    }
    raster = {
        "crops": layout.grid,
        "rows": layout.rows,
        "columns": layout.columns,
        "kept": (chosen[chosen >= layout.base] - layout.base).tolist(),
        **{name: _row(score, layout.base, layout.patches, 0) for name, score in scores.items()},
    }
    return [base, raster] if layout.height else [base]


def _row(scores: torch.Tensor | None, start: int, end: int, first: int) -> list[float] | None:
    """Scores of one image's patches, after zeros for those that the tower does not hand on."""
    return None if scores is None else [0.0] * first + scores[0, start:end].float().tolist()


def _relevance(tokens: VisualTokens) -> torch.Tensor | None:
    """`[1, N]`: how well each token of one image matches the text; None without any."""
    if tokens.text is None or tokens.projected is None or not len(tokens.text[0]):
        return None
    visual, text = tokens.projected[0], tokens.text[0].to(tokens.projected.dtype)
    return text_relevance(
        visual,
        text,
        torch.tensor([0, len(visual)], device=visual.device),
        torch.tensor([0, len(text)], device=visual.device),
        max_visual=len(visual),
        max_text=len(text),
        temperature=_SHARPNESS,
    ).unsqueeze(0)


def _implementation(model: PrunedModel) -> str:
    return implementation(model.vision_tower.device)


WORKER_METHODS: dict[str, Callable[..., Any]] = {
    "vtprune_explain": explain,
    "vtprune_implementation": _implementation,
}
"""By the names that `collective_rpc` is called with."""
