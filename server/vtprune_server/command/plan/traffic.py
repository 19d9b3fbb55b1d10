"""The input of a simulation, a replica's layout, and the outcome."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Layout", "Outcome", "Traffic"]


@dataclass(frozen=True, slots=True)
class Traffic:
    """The shape of every request."""

    images: int
    visual_tokens: int
    """Per image, unpruned."""
    kept: int
    """Visual tokens kept per image; `visual_tokens` is stock vLLM, which selects nothing."""
    prompt: int
    """Text tokens, including those of the chat template."""
    answer: int
    """Tokens of the answer, at least 1."""
    pixels: int
    """Per image, as the client sends it."""

    @property
    def tokens(self) -> int:
        """Tokens that the decoder prefills."""
        return self.prompt + self.images * self.kept

    @property
    def is_pruned(self) -> bool:
        """Whether tokens are dropped."""
        return self.kept < self.visual_tokens


@dataclass(frozen=True, slots=True)
class Layout:
    """The processes of one replica."""

    api_servers: int = 1
    encoders: int = 0
    """Cards beside it that run the tower; with 0 it runs in the engine."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a simulated load."""

    requests_per_s: float
    first_tokens: list[float]
    """Seconds from sending a request to its first token, ascending."""
    api_busy: float
    """Mean share of the time that an API server is busy."""

    def first_token(self, share: float) -> float:
        """The quantile `share` of the times to the first token, in seconds."""
        at = min(int(share * len(self.first_tokens)), len(self.first_tokens) - 1)
        return self.first_tokens[at]
