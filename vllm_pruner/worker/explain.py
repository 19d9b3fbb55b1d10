"""Explain a selection: what it saw and what it chose, to show to a person.

Called by name on every worker. None of this runs for ordinary requests, so it may sync with the
device.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from vtprune_kernels import implementation, text_relevance

from vllm_pruner.methods.base import VisualTokens
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.keys import BYTES
from vllm_pruner.tower import VIDEO_PIXELS
from vllm_pruner.worker.columns import parameter_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_pruner.layout.layout import Layout, View
    from vllm_pruner.tower import Tower
    from vllm_pruner.worker.guard import Guard

__all__ = ["WORKER_METHODS", "Observer"]

Observer = Callable[[VisualTokens, torch.Tensor, "Layout"], None]
"""Called with a selection's inputs, the kept positions `[images, keep]` and the images' layout."""

_SHARPNESS = 100.0
"""Inverse temperature of the softmax for relevance: AdaFV's, whatever the method."""

_PIXELS = VIDEO_PIXELS | {"pixel_values", "pixel_values_flat", "images", BYTES}
"""The fields that hold an image's or a video's pixels; its other fields stay on the CPU."""

_WHOLE = ImagePlan(PruneConfig(rate=0.0), ImagePlan.ANONYMOUS)
"""For an image that has no plan because nothing in its request is pruned."""


class Explained(Protocol):
    """The part of a `PrunedModel` that this module uses."""

    tower: Tower
    on_selection: Observer | None
    guard: Guard

    def embed_planned(self, plans: list[ImagePlan], **kwargs: object) -> Any: ...


def explain(model: Explained, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Select for images as a request would.

    Args:
        model: this worker's model.
        items: for each image, the fields that the processor made, as a batch of one; a field is
            `(dtype, shape, bytes)`, or a list of such or of lists.

    Returns:
        For each image: the `fault` of its method or None (with a fault, the rest is meaningless);
        its `settings` (empty if it is not pruned); the `original` number of tokens; the `kept`
        positions; how many `rows` the decoder gets; and the `views` of its `Layout`. A view has its
        grid of `crops` or its single `crop`, the bounds of its `rows` and `columns` of patches
        without padding, the grid of its `tokens` if it was resampled, whether it `is_drawn` on the
        picture, the `kept` places in it, and the `importance` and `relevance` of its places, or
        None.
    """
    return [
        _explain_one(model, {name: _unpack(field) for name, field in item.items()})
        for item in items
    ]


def _unpack(field: Any) -> Any:
    """Return a tensor, or a list of them. On its way a tuple may have become a list."""
    if not isinstance(field[0], str):
        return [_unpack(each) for each in field]
    dtype, shape, data = field
    return torch.from_numpy(np.frombuffer(data, dtype=dtype).reshape(shape).copy())


def _placed(pixels: Any, like: torch.Tensor) -> Any:
    """Return pixels on a tower's device. Integers are normalised there."""
    if isinstance(pixels, list):
        return [_placed(each, like) for each in pixels]
    return pixels.to(like.device, like.dtype if pixels.is_floating_point() else pixels.dtype)


@torch.inference_mode()
def _explain_one(model: Explained, item: dict[str, Any]) -> dict[str, Any]:
    # Not only without gradients: vLLM made the buffers of CUDA graphs in inference mode, and
    # outside of it torch refuses to write them.
    fields: dict[str, Any] = dict(item)
    first = parameter_of(model.tower.module)
    for name in item.keys() & _PIXELS:
        fields[name] = _placed(item[name], first)
    (plan,) = ImagePlan.pop_all(fields) or [_WHOLE]
    with _observed(model) as selections, model.guard.apart() as faults:
        (rows,) = model.embed_planned([plan], **fields)
    ((tokens, kept, layout),) = selections
    return {
        "fault": faults[0][1] if faults else None,
        "settings": {} if plan.config.off else plan.config.model_dump(exclude_none=True),
        "original": layout.tokens,
        "kept": kept[0].tolist(),
        "rows": len(rows),
        "views": _views(tokens, kept[0], layout),
    }


@contextmanager
def _observed(
    model: Explained,
) -> Iterator[list[tuple[VisualTokens, torch.Tensor, Layout]]]:
    """Collect the selections made in the block."""
    selections: list[tuple[VisualTokens, torch.Tensor, Layout]] = []
    before = model.on_selection
    model.on_selection = lambda *selection: selections.append(selection)
    try:
        yield selections
    finally:
        model.on_selection = before


def _views(tokens: VisualTokens, kept: torch.Tensor, layout: Layout) -> list[dict[str, Any]]:
    """Describe each view of an image; see `explain`."""
    patches, newline = layout.patches_at(kept)
    chosen = patches[~newline]
    scores = {"importance": tokens.importance, "relevance": _relevance(tokens)}
    return [
        {
            "crops": view.crops,
            "crop": view.crop,
            "rows": view.rows,
            "columns": view.columns,
            "tokens": view.tokens,
            "is_drawn": view.is_drawn,
            "kept": _inside(chosen, view),
            **{name: _row(score, view) for name, score in scores.items()},
        }
        for view in layout.views()
    ]


def _inside(chosen: torch.Tensor, view: View) -> list[int]:
    """Return the places within a view of the chosen patches that it shows."""
    inside = chosen[(chosen >= view.start) & (chosen < view.end)]
    kept: list[int] = (inside - view.start + view.missing).tolist()
    return kept


def _row(scores: torch.Tensor | None, view: View) -> list[float] | None:
    """Return the scores of a view's patches, preceded by zeros for patches the tower drops."""
    if scores is None:
        return None
    return [0.0] * view.missing + scores[0, view.start : view.end].float().tolist()


def _relevance(tokens: VisualTokens) -> torch.Tensor | None:
    """Return `[1, N]`, how well each token of an image matches its text; None without text."""
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


def _implementation(model: Explained) -> str:
    return implementation(parameter_of(model.tower.module).device)


WORKER_METHODS: dict[str, Callable[..., Any]] = {
    "vtprune_explain": explain,
    "vtprune_implementation": _implementation,
}
"""By name, for `collective_rpc`."""
