"""A pruning method: how many tokens survive and which ones, as one value.

The prompt is built from the count and the model selects the tokens, in different processes. Two
loose functions could disagree; one `Method` cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from vllm_pruner.budget import Budget, keep_count

if TYPE_CHECKING:
    import torch

__all__ = ["Method", "Options", "VisualTokens", "get", "names", "register"]


class Options(BaseModel):
    """Base of every method's options: no unknown names, no silent conversions, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclass(frozen=True, slots=True)
class VisualTokens:
    """What a method may look at, for a batch of images with equally many tokens."""

    features: torch.Tensor
    """`[images, N, D]`: what the encoder gives to the projector, before projection."""

    importance: torch.Tensor | None
    """`[images, N]` float32: attention to each token; None unless the method asks for it."""

    projected: torch.Tensor | None = None
    """`[images, N, width of the decoder]`: the features as the decoder would see them; None unless
    the method asks for text."""

    text: Sequence[torch.Tensor] | None = None
    """Per image `[tokens, width of the decoder]`: the decoder's input embeddings of the text that
    follows the image in its message, possibly none; None unless the method asks for it."""

    def at(self, index: torch.Tensor) -> VisualTokens:
        """Return the same images with the tokens of a `[tokens]` index only."""
        return VisualTokens(
            self.features[:, index],
            None if self.importance is None else self.importance[:, index],
            None if self.projected is None else self.projected[:, index],
            self.text,
        )


@dataclass(frozen=True, slots=True)
class Method:
    """One way of choosing tokens."""

    name: str
    """The paper's name in lower case: what `--prune-method` takes."""

    select: Callable[[VisualTokens, int, Any], torch.Tensor]
    """`select(tokens, keep, options)` returns `[images, keep]` int64, ascending and unique, on the
    device of the features, without asking the host. Equal input gives equal output in any batch."""

    options: type[Options] = Options
    """Validated type of the third argument of `select`."""

    needs_importance: bool = True
    """Whether the encoder's attention has to be captured for it."""

    keep_count: Callable[[int, Budget], int] = keep_count
    """`keep_count(tokens, budget)`: the `keep` that `select` will be called with, less what a model
    spends on tokens of its own (newlines)."""

    needs_text: bool = False
    """Whether the choice depends on the text that follows the image."""


_METHODS: dict[str, Method] = {}


def register(method: Method) -> Method:
    """Make `method` known by its name.

    Raises:
        ValueError: another method already has that name.
    """
    if _METHODS.setdefault(method.name, method) is not method:
        raise ValueError(f"method {method.name!r} is registered already")
    return method


def get(name: str) -> Method:
    """Return the method called `name`.

    Raises:
        ValueError: there is none; the message names those there are.
    """
    import vllm_pruner.methods  # noqa: F401  # registers the built-in ones

    if name not in _METHODS:
        raise ValueError(f"method is {name!r}; allowed: {', '.join(names())}")
    return _METHODS[name]


def names() -> list[str]:
    """Return the names of all registered methods, sorted."""
    import vllm_pruner.methods  # noqa: F401

    return sorted(_METHODS)
