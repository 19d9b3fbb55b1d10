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

    from vllm_pruner.methods.ragged import Ragged

__all__ = ["ALLOWED", "CAPTURED", "TOWER", "Kept", "Method", "Need", "Options", "VisualTokens"]


class Options(BaseModel):
    """Base of every method's options: no unknown names, no silent conversions, immutable."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


class Need(StrEnum):
    """What a method may ask for besides the features; each is a field of `VisualTokens`."""

    IMPORTANCE = "importance"
    KEYS = "keys"
    RECEIVED = "received"
    RECEIVED_MIDWAY = "received_midway"
    PROJECTED = "projected"
    TEXT = "text"
    GRID = "grid"

    MERGER_NORM = "merger_norm"
    """Not for methods: what the tower returns as their importance if the settings say so. The norms
    of a token's patches as they leave the tower's last layer, not normalised, added up."""


TOWER = frozenset({Need.IMPORTANCE, Need.KEYS, Need.RECEIVED, Need.RECEIVED_MIDWAY})
"""What methods can ask for that can only be captured while the encoder runs."""

CAPTURED = TOWER | {Need.MERGER_NORM}
"""All that is captured while the encoder runs."""

ALLOWED = tuple(need for need in Need if need != Need.MERGER_NORM)
"""What a method's `needs` may have."""


@dataclass(frozen=True, slots=True)
class VisualTokens:
    """The inputs of a method, for a batch of images (or videos) with equally many tokens.

    Every field but `features` and `frames` may be None; those that the method needs are not.
    """

    features: torch.Tensor
    """`[images, N, D]`: the encoder's output, before projection."""

    importance: torch.Tensor | None = None
    """`[images, N]` float32: attention from the class token to each token, or `received` if the
    encoder has no class token; in the layer that produces the features, mean over heads."""

    projected: torch.Tensor | None = None
    """`[images, N, width of the decoder]`: the features as the decoder would see them."""

    text: Sequence[torch.Tensor] | None = None
    """Per image `[tokens, width of the decoder]`: the decoder's input embeddings of the text that
    asks about the image (`prompt.message_text`); zero rows if there is none. `texts.Texts` has
    them in one tensor."""

    keys: torch.Tensor | None = None
    """`[images, N, head size]` float32: attention keys of the layer that produces the features,
    mean over heads."""

    received: torch.Tensor | None = None
    """`[images, N]` float32: attention that each token receives in the layer that produces the
    features, mean over heads and all queries, a class token's included."""

    received_midway: torch.Tensor | None = None
    """`[images, N]` float32: `received` in the layer at 3/8 of the encoder's depth (9th of 24)."""

    grid: tuple[int, int] | None = None
    """Rows and columns of tokens in an image or frame; their product is its number of tokens."""

    grids: tuple[tuple[int, int], ...] = ()
    """Rows and columns of tokens of each grid of an image that is several, one behind the other
    along N, in place of `grid`; only for a method that chooses `before_tower`."""

    frames: int = 1
    """Number of frames, which follow one another along N; 1 for an image."""

    ragged: Ragged | None = None
    """Lengths and budgets of images of unequal length, padded to N; None if all are of N. Only a
    method that is `ragged` is given any."""

    def at(self, index: torch.Tensor) -> VisualTokens:
        """Return parts of the images as images of their own, image by image, without a grid.

        Args:
            index: `[parts, tokens]` int64, the tokens of each part; or `[tokens]`, of a single one.
        """
        parts = index.view(-1, index.shape[-1])
        chosen = {name: getattr(self, name) for name in _OF_EACH_TOKEN}
        chosen = {k: None if v is None else v[:, parts].flatten(0, 1) for k, v in chosen.items()}
        if self.text is not None and len(parts) > 1:
            chosen["text"] = [text for text in self.text for _ in parts]
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
    """`[images, keep]` int64, ascending: the kept tokens, or those that `rows` replace."""

    rows: torch.Tensor | None = None
    """`[images, keep, D]` in the features' dtype: merged rows, projected in place of the features
    at `index`. None if the method keeps tokens unchanged."""


@dataclass(frozen=True, slots=True)
class Method:
    """One way of choosing tokens."""

    name: str
    """The paper's name in lower case, as in `--prune-method`."""

    select: Callable[[VisualTokens, int, Any], torch.Tensor | Kept]
    """`select(tokens, keep, options)` returns `[images, keep]` int64, ascending and unique, on the
    device of the features and without a host sync, or a `Kept` if it merges. Equal input gives
    equal output in any batch. Callers use `choose`."""

    options: type[Options] = Options
    """Type of the third argument of `select`, validated by pydantic."""

    needs: frozenset[Need] = frozenset()
    """What it reads besides the features; nothing else is captured."""

    keep_count: Callable[[int, Budget], int] = keep_count
    """`keep_count(tokens, budget)`: the tokens kept of an image. `select` is called with this
    number, less what the model spends on tokens of its own (newlines)."""

    shrink: Callable[[int], tuple[int, int]] | None = None
    """`shrink(keep)`: rows and columns of patches, their product `keep`, to which the image is
    shrunk before the encoder; `select` then gets the `keep` tokens. None leaves the image as is."""

    before_tower: bool = False
    """Whether it chooses by pixels, before the tower runs, which then encodes only what is kept.
    `features` are the pixels of each token's patches, `[images, N, values]`, red ones before green
    before blue; of all others it may need the grid alone."""

    merges: bool = False
    """Whether `select` returns merged rows."""

    repeats: bool = False
    """Whether a token may be kept twice: only to reproduce a published defect."""

    ragged: bool = False
    """Whether `select` takes images of unequal length: `keep` is then the largest budget, and a row
    of the result ends in -1 where its image keeps fewer. An image keeps the same tokens as alone,
    so sums over its tokens have to be exact in any order, and padding may hold anything."""

    def choose(self, tokens: VisualTokens, keep: int, options: Options) -> Kept:
        """Return what `select` keeps, always as a `Kept`."""
        kept = self.select(tokens, keep, options)
        return kept if isinstance(kept, Kept) else Kept(kept)

    @property
    def needs_one_grid(self) -> bool:
        """Whether an image must be one grid of tokens, not several crops or tiles."""
        return self.merges or self.repeats or bool(self.shrink) or Need.GRID in self.needs

    @property
    def needs_text(self) -> bool:
        """Whether the choice depends on the text that follows the image."""
        return Need.TEXT in self.needs
