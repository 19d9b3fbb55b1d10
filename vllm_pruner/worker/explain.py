"""What a selection saw and chose, for a person to look at. Called by name on every worker.

None of this runs while requests are answered, so it may copy to the host.
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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_pruner.layout.layout import Layout, View
    from vllm_pruner.tower import Tower
    from vllm_pruner.worker.guard import Guard

__all__ = ["WORKER_METHODS", "Observer"]

Observer = Callable[[VisualTokens, torch.Tensor, "Layout"], None]
"""Takes what a selection was made from, the kept positions `[images, keep]` and the layout that the
images share."""

_SHARPNESS = 100.0
"""Inverse temperature of the softmax that shows relevance: AdaFV's, for every method."""

_PIXELS = frozenset({"pixel_values", "pixel_values_flat", BYTES})
"""What models call the pixels of an image; its other fields stay on the CPU."""

_WHOLE = ImagePlan(PruneConfig(rate=0.0), ImagePlan.ANONYMOUS)
"""Of an image that the processor left without a plan, because nothing is pruned of its request."""


class Explained(Protocol):
    """What this file asks of a `PrunedModel`."""

    tower: Tower
    on_selection: Observer | None
    guard: Guard

    def embed_planned(self, plans: list[ImagePlan], **kwargs: object) -> Any: ...


def explain(model: Explained, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Select for images as a request would.

    Args:
        model: this worker's.
        items: for each image the fields that the processor made, as a batch of one, as `(dtype,
            shape, bytes)`.

    Returns:
        For each image the `fault` of its method, after which the rest means nothing, or None; its
        `settings` (none if it is not pruned), `original` count, `kept`
        positions, how many `rows` the decoder gets, and `views`, those of `Layout`. A view has its
        grid of `crops`, the bounds of its `rows` and `columns` of patches without padding, its
        `tokens` if they are fewer, the `kept` ones, `importance` and `relevance`; a view of one
        crop says which `crop`.
    """
    return [
        _explain_one(model, {name: _unpack(*it) for name, it in item.items()}) for item in items
    ]


def _unpack(dtype: str, shape: list[int], data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(data, dtype=dtype).reshape(shape).copy())


@torch.no_grad()
def _explain_one(model: Explained, item: dict[str, torch.Tensor]) -> dict[str, Any]:
    fields: dict[str, Any] = dict(item)
    first = next(model.tower.module.parameters())
    for name in item.keys() & _PIXELS:
        # Bytes are normalised on the device.
        dtype = first.dtype if item[name].is_floating_point() else item[name].dtype
        fields[name] = item[name].to(first.device, dtype)
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
            "kept": _inside(chosen, view),
            **{name: _row(score, view) for name, score in scores.items()},
        }
        for view in layout.views()
    ]


def _inside(chosen: torch.Tensor, view: View) -> list[int]:
    """Return the places in a view of those chosen patches that are in it."""
    inside = chosen[(chosen >= view.start) & (chosen < view.end)]
    kept: list[int] = (inside - view.start + view.missing).tolist()
    return kept


def _row(scores: torch.Tensor | None, view: View) -> list[float] | None:
    """Return the scores of one image's patches, zeros first for those that the tower drops."""
    if scores is None:
        return None
    return [0.0] * view.missing + scores[0, view.start : view.end].float().tolist()


def _relevance(tokens: VisualTokens) -> torch.Tensor | None:
    """Return `[1, N]`, how well each token of one image matches its text; None without text."""
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
    return implementation(next(model.tower.module.parameters()).device)


WORKER_METHODS: dict[str, Callable[..., Any]] = {
    "vtprune_explain": explain,
    "vtprune_implementation": _implementation,
}
"""By the name that `collective_rpc` calls them with."""
