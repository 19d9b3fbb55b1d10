"""Relevance of each visual token to a text: its best match with any of the text's tokens.

For one image with visual tokens v_1..v_N and a text of tokens e_1..e_M,

    relevance[j] = max_m softmax_j(temperature * cos(e_m, v_j)),   j = 1..N

The softmax runs over the visual tokens, then the maximum over the text: a text token that matches
many visual tokens equally says little about each. Without a text, the relevance is 0 everywhere.

An image's values are the same to the bit alone and in any batch, on one device. The reference takes
the cosine in fixed point, as `cosine_gram` does; the kernels add products of 16-bit inputs in
float32, in an order of their own, so the two agree to rounding.

Source: AdaFV (arXiv 2501.09532), from the formula in `methods.md` 2.1, temperature 100. Its code
runs one image at a time and copies to the host in between.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch

from vtprune_kernels._triton import register_op, use_triton
from vtprune_kernels.cosine_gram import FRACTION_BITS, unit_integers
from vtprune_kernels.spec import Spec, features
from vtprune_kernels.text_relevance_triton import text_relevance_triton

__all__ = ["SPECS", "text_relevance"]


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
    """Return for each visual token its largest share in the softmax of any text token.

    Args:
        visual: `[visual tokens of all images, D]`, any float dtype.
        text: `[text tokens of all images, D]`, same dtype. Rows past the last bound are no image's,
            whatever they contain.
        visual_bounds: `[images + 1]` integers, where each image starts and the last one ends.
        text_bounds: `[images + 1]` integers, the same for the texts.
        max_visual: upper bound of an image's tokens; known on the host, it saves launching programs
            that have nothing to do. Default: all.
        max_text: the same for a text; it also bounds the workspace.
        temperature: factor on the cosine.
        valid: `[visual tokens of all images]` bool, which of them exist (see `segments`): the rest
            take no part in the softmax and get 0. With a mask the kernel is another program, whose
            values may differ in their last bits, also where all exist.

    Returns:
        `[visual tokens of all images]` float32, 0 to 1.

    Raises:
        ValueError: widths, dtypes or the numbers of images differ.
    """
    if visual.shape[1:] != text.shape[1:] or visual.dtype != text.dtype:
        raise ValueError(f"visual {list(visual.shape)} {visual.dtype}, text {list(text.shape)}")
    if visual_bounds.shape != text_bounds.shape:
        raise ValueError("visual_bounds and text_bounds are for different numbers of images")
    # On a CPU too, as one opaque step: the reference asks the host, which no kernel does.
    run = text_relevance_reference
    if visual.is_cpu or use_triton(visual, text):
        run = _text_relevance_op
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
    """Plain torch, one image after the other, without padding, with the exact cosine of
    `cosine_gram`: a product or a softmax of the whole batch would round differently with every
    other batch."""
    relevance = visual.new_zeros(visual.shape[0], dtype=torch.float32)
    places = torch.arange(len(visual), device=visual.device)
    ends = zip(visual_bounds.tolist(), text_bounds.tolist(), strict=True)
    for (first_v, first_t), (end_v, end_t) in pairwise(ends):
        rows = places[first_v:end_v]
        if valid is not None:
            rows = rows[valid[first_v:end_v]]
        if not len(rows) or first_t == end_t:
            continue
        units = unit_integers(text[first_t:end_t]) @ unit_integers(visual[rows]).T
        # Rows without direction are NaN; their cosine is 0.
        cosine = units.mul_(2.0 ** (-2 * FRACTION_BITS)).nan_to_num_(0.0).float()
        relevance[rows] = (temperature * cosine).softmax(dim=1).amax(dim=0)
    return relevance


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
    "text_relevance",
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


SPECS = (
    Spec(
        name="text_relevance",
        op=text_relevance,
        reference=text_relevance_reference,
        launcher=text_relevance_triton,
        registered=_text_relevance_op,
        make_inputs=_make_inputs,
        # A cosine in float32 is good to about 1e-7 for every dtype of input, since products of
        # 16-bit numbers are exact; the temperature makes that 1e-5 of a value at most 1.
        tolerance={torch.float32: 2e-5, torch.float16: 2e-5, torch.bfloat16: 2e-5},
    ),
)
