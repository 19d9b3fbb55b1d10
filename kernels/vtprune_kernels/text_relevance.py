"""Relevance of each visual token to a text: the best match that any text token makes of it.

For one image with visual tokens v_1..v_N and a text of tokens e_1..e_M,

    relevance[j] = max_m softmax_j(temperature * cos(e_m, v_j)),   j = 1..N

The softmax runs over the visual tokens, then the maximum over the text: a text token that matches
many visual tokens alike says little about each. An image without text is relevant nowhere: 0.

Source: AdaFV (arXiv 2501.09532), from the formula in `methods.md` 2.1, temperature 100. Its code
runs one image at a time and copies to the host in between.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from vtprune_kernels._triton import register_op, use_triton
from vtprune_kernels.spec import Spec, features
from vtprune_kernels.text_relevance_triton import text_relevance_triton

__all__ = ["SPEC", "text_relevance"]

_SMALLEST_SQUARE = 2.0**-100


def text_relevance(
    visual: torch.Tensor,
    text: torch.Tensor,
    visual_bounds: torch.Tensor,
    text_bounds: torch.Tensor,
    max_visual: int | None = None,
    max_text: int | None = None,
    temperature: float = 100.0,
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return for each visual token the highest share of a text token's attention it gets.

    Args:
        visual: `[visual tokens of all images, D]`, any float dtype.
        text: `[text tokens of all images, D]`, same dtype.
        visual_bounds: `[images + 1]` integers, where each image starts and the last one ends.
        text_bounds: `[images + 1]` integers, the same for the texts.
        max_visual: upper bound of an image's tokens; known on the host, it saves launching programs
            that have nothing to do. Default: all.
        max_text: the same for a text; it also bounds the workspace.
        temperature: factor on the cosine.
        valid: `[visual tokens of all images]` bool, which of them exist (see `segments`): the rest
            take no part in the softmax and get 0.

    Returns:
        `[visual tokens of all images]` float32, 0 to 1.

    Raises:
        ValueError: widths, dtypes or the numbers of images differ.
    """
    if visual.shape[1:] != text.shape[1:] or visual.dtype != text.dtype:
        raise ValueError(f"visual {list(visual.shape)} {visual.dtype}, text {list(text.shape)}")
    if visual_bounds.shape != text_bounds.shape:
        raise ValueError("visual_bounds and text_bounds are for different numbers of images")
    run = _text_relevance_op if use_triton(visual, text) else text_relevance_reference
    return run(visual, text, visual_bounds, text_bounds, max_visual, max_text, temperature, valid)


def text_relevance_reference(
    visual: torch.Tensor,
    text: torch.Tensor,
    visual_bounds: torch.Tensor,
    text_bounds: torch.Tensor,
    max_visual: int | None = None,
    max_text: int | None = None,
    temperature: float = 100.0,
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """Plain torch: all visual tokens by all text tokens, with those of one image as a mask."""
    if text.shape[0] == 0:
        return visual.new_zeros(visual.shape[0], dtype=torch.float32)
    units = []
    images = []
    for rows, bounds in ((visual, visual_bounds), (text, text_bounds)):
        rows = rows.float()
        square = rows.square().sum(dim=-1, keepdim=True)
        units.append(rows * square.clamp_min(_SMALLEST_SQUARE).rsqrt())
        position = torch.arange(rows.shape[0], device=rows.device)
        images.append(torch.bucketize(position, bounds[1:].long(), right=True))
    together = images[0][:, None] == images[1][None, :]
    if valid is not None:
        together &= valid[:, None]
    logits = temperature * (units[0] @ units[1].T)
    shares = logits.masked_fill(~together, -math.inf).softmax(dim=0)
    return shares.masked_fill(~together, 0.0).amax(dim=1)


def _text_relevance_fake(
    visual: torch.Tensor,
    text: torch.Tensor,
    visual_bounds: torch.Tensor,
    text_bounds: torch.Tensor,
    max_visual: int | None = None,
    max_text: int | None = None,
    temperature: float = 100.0,
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    return visual.new_empty(visual.shape[0], dtype=torch.float32)


_text_relevance_op = register_op(
    "text_relevance(Tensor visual, Tensor text, Tensor visual_bounds, Tensor text_bounds,"
    " SymInt? max_visual=None, SymInt? max_text=None, float temperature=100.0,"
    " Tensor? valid=None) -> Tensor",
    text_relevance_triton,
    text_relevance_reference,
    _text_relevance_fake,
)


def _make_inputs(
    kind: str, size: int, dtype: torch.dtype, device: torch.device | str, large: bool = False
) -> dict[str, Any]:
    width = 4096 if large else 72
    visual = [0, size, size + max(1, size // 3), 2 * size]
    text = [0, 5, 5, 5 + (50 if large else 35)]  # the second image comes without a text
    return {
        "visual": features(kind, (visual[-1], width), dtype, device),
        "text": features(kind, (text[-1], width), dtype, device, seed=1),
        "visual_bounds": torch.tensor(visual, device=device),
        "text_bounds": torch.tensor(text, device=device),
        "max_visual": size,
        "max_text": 50 if large else 35,
    }


SPEC = Spec(
    name="text_relevance",
    op=text_relevance,
    reference=text_relevance_reference,
    launcher=text_relevance_triton,
    registered=_text_relevance_op,
    make_inputs=_make_inputs,
    # A cosine in float32 is good to about 1e-7 whatever the dtype of the input, its products being
    # exact for 16-bit ones; the temperature makes that 1e-5 of a value at most 1.
    tolerance={torch.float32: 2e-5, torch.float16: 2e-5, torch.bfloat16: 2e-5},
)
