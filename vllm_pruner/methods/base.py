"""A pruning method: how many tokens survive and which ones, as one value.

The prompt is built from the count and the model selects the tokens, in different processes. Two
loose functions could disagree; one `Method` cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from vllm_pruner.methods.budget import Budget, keep_count

if TYPE_CHECKING:
    import torch

__all__ = ["TOWER", "Kept", "Method", "Need", "Options", "VisualTokens"]


class Options(BaseModel):
    """Base of every method's options: no unknown names, no silent conversions, immutable."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


class Need(StrEnum):
    """What a method may ask for beside the features: a field of `VisualTokens` each."""

    IMPORTANCE = "importance"
    KEYS = "keys"
    RECEIVED = "received"
    RECEIVED_MIDWAY = "received_midway"
    PROJECTED = "projected"
    TEXT = "text"
    GRID = "grid"


TOWER = frozenset({Need.IMPORTANCE, Need.KEYS, Need.RECEIVED, Need.RECEIVED_MIDWAY})
"""What can only be had while the encoder runs."""


@dataclass(frozen=True, slots=True)
class VisualTokens:
    """What a method may look at, for a batch of images (or videos) with equally many tokens.

    All but the features is None unless the method asks for it.
    """

    features: torch.Tensor
    """`[images, N, D]`: what the encoder gives to the projector, before projection."""

    importance: torch.Tensor | None = None
    """`[images, N]` float32: attention to each token, of the class token where there is one, else
    `received`; of the layer that produces the features, mean over heads."""

    projected: torch.Tensor | None = None
    """`[images, N, width of the decoder]`: the features as the decoder would see them."""

    text: Sequence[torch.Tensor] | None = None
    """Per image `[tokens, width of the decoder]`: the decoder's input embeddings of the text that
    follows the image in its message, possibly none."""

    keys: torch.Tensor | None = None
    """`[images, N, head size]` float32: keys of the layer that produces the features, mean over
    heads."""

    received: torch.Tensor | None = None
    """`[images, N]` float32: attention that each token receives in the layer that produces the
    features, mean over all queries (a class token's among them) and heads."""

    received_midway: torch.Tensor | None = None
    """`[images, N]` float32: the same of the layer at 3/8 of the encoder's depth, the 9th of 24."""

    grid: tuple[int, int] | None = None
    """Rows and columns of tokens in an image or frame; their product is its tokens."""

    frames: int = 1
    """Of a video, one after the other in N; 1 is an image."""

    def at(self, index: torch.Tensor) -> VisualTokens:
        """Return the same images with the tokens of a `[tokens]` index only, and no grid."""
        chosen = {name: getattr(self, name) for name in _OF_EACH_TOKEN}
        chosen = {k: None if v is None else v[:, index] for k, v in chosen.items()}
        return replace(self, **chosen, grid=None)


_OF_EACH_TOKEN = (
    "features",
    Need.IMPORTANCE,
    Need.PROJECTED,
    Need.KEYS,
    Need.RECEIVED,
    Need.RECEIVED_MIDWAY,
)


@dataclass(frozen=True, slots=True)
class Kept:
    """What a method keeps of a batch of images."""

    index: torch.Tensor
    """`[images, keep]` int64, ascending: the kept tokens, or those in whose place `rows` stand."""

    rows: torch.Tensor | None = None
    """`[images, keep, D]` in the features' dtype: merged rows, which the projector gets instead of
    the features at `index`. None if the method chooses tokens as they are."""


@dataclass(frozen=True, slots=True)
class Method:
    """One way of choosing tokens."""

    name: str
    """The paper's name in lower case: what `--prune-method` takes."""

    select: Callable[[VisualTokens, int, Any], torch.Tensor | Kept]
    """`select(tokens, keep, options)` returns `[images, keep]` int64, ascending and unique, on the
    device of the features, without asking the host; or a `Kept` if it merges. Equal input gives
    equal output in any batch. Call `choose` for the result."""

    options: type[Options] = Options
    """Validated type of the third argument of `select`."""

    needs: frozenset[Need] = frozenset()
    """What it looks at beside the features; only that is captured."""

    keep_count: Callable[[int, Budget], int] = keep_count
    """`keep_count(tokens, budget)`: the `keep` that `select` will be called with, less what a model
    spends on tokens of its own (newlines)."""

    shrink: Callable[[int], tuple[int, int]] | None = None
    """`shrink(keep)`: rows and columns of patches, `keep` together, to which the image is shrunk
    before the encoder. `select` then gets the encoder's `keep` tokens. None leaves the image."""

    merges: bool = False
    """Whether `select` makes rows of its own."""

    repeats: bool = False
    """Whether a token may be kept twice, as only the reproduction of a published defect does."""

    def choose(self, tokens: VisualTokens, keep: int, options: Options) -> Kept:
        """Return what `select` keeps, always as a `Kept`."""
        kept = self.select(tokens, keep, options)
        return kept if isinstance(kept, Kept) else Kept(kept)

    @property
    def needs_text(self) -> bool:
        """Whether the choice depends on the text that follows the image."""
        return Need.TEXT in self.needs
