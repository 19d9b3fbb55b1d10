"""What is asked of servers, how they are started, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Layout", "Outcome", "Traffic"]


@dataclass(frozen=True, slots=True)
class Traffic:
    """What every request is."""

    images: int
    visual_tokens: int
    """Of each image, unpruned."""
    kept: int
    """Of these; all of them is stock vLLM, which selects nothing."""
    prompt: int
    """Tokens beside the images, those of the chat template among them."""
    answer: int
    """Tokens of the answer, at least 1."""
    pixels: int
    """Of each image, as it is sent."""

    @property
    def tokens(self) -> int:
        """What the decoder prefills."""
        return self.prompt + self.images * self.kept

    @property
    def is_pruned(self) -> bool:
        """Whether anything is selected."""
        return self.kept < self.visual_tokens


@dataclass(frozen=True, slots=True)
class Layout:
    """How one replica is started."""

    api_servers: int = 1
    encoders: int = 0
    """Cards beside it that run the tower; 0: it runs in the engine."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a load."""

    requests_per_s: float
    first_tokens: list[float]
    """Seconds from sending a request to its first token, ascending."""
    api_busy: float
    """Share of the time, the API servers' mean."""

    def first_token(self, share: float) -> float:
        """The quantile of that share."""
        at = min(int(share * len(self.first_tokens)), len(self.first_tokens) - 1)
        return self.first_tokens[at]
