"""What pruning needs to know about a model family: one record for prompt and worker alike.

The two halves run in different processes and must agree on every count, so both read the same
`Family`. They get it from the vLLM classes that they extend, as the class attribute `family`, and
know no family by name. Everything here follows from the model's configuration and the image's size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from vllm_pruner.layout.crop_layout import CropLayout
    from vllm_pruner.methods.base import Method

__all__ = ["EncoderImage", "Family", "cut_run"]


@dataclass(frozen=True, slots=True, eq=False)
class EncoderImage:
    """An image as it enters the vision tower."""

    pixels: torch.Tensor
    """`[crops, 3, height, width]`."""

    layout: CropLayout
    """Where the tokens of these crops go in the decoder's sequence."""


def cut_run(placeholders: Sequence[int], kept: int) -> list[int]:
    """Return the first `kept` placeholders of an image that is a run of one repeated token.

    Raises:
        ValueError: other tokens stand between the placeholders.
    """
    if len(set(placeholders)) != 1:
        raise ValueError(f"placeholders are {list(placeholders)}; allowed: one token, repeated")
    return list(placeholders[:kept])


@dataclass(frozen=True, slots=True)
class Family:
    """One model family. `hf_config` is the configuration of the whole model."""

    name: str

    largest: Callable[[Any], CropLayout]
    """`largest(hf_config)`: the layout with the most tokens, which is the one that vLLM profiles
    memory with. A `ConfigError` if this model cannot be pruned."""

    layout: Callable[[Any, int, int], CropLayout]
    """`layout(hf_config, height, width)`: the layout of an image of that many pixels. It has as
    many tokens as vLLM inserts placeholders for the unpruned image."""

    images: Callable[[Any, Any], list[EncoderImage]]
    """`images(hf_config, image_input)`: the images of a batch that vLLM's
    `_parse_and_validate_image_input` returned, without crops that only pad the batch."""

    check_method: Callable[[Any, Method], None]
    """`check_method(hf_config, method)`: a `ConfigError` if this model cannot serve the method."""

    cut: Callable[[Sequence[int], int], list[int]] = cut_run
    """`cut(placeholders, kept)`: what is left of an image's placeholder tokens when `kept` of
    its visual tokens are."""

    one_layout: bool = False
    """Whether all images have the `largest` layout, whatever their size."""
