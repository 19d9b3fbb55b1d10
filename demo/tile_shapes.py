"""Shapes of the demo models that cut pictures into tiles, slices or crops; see `shapes`."""

from dataclasses import dataclass
from typing import ClassVar

from shapes import AnyShape


@dataclass(frozen=True, slots=True)
class Llama4Shape(AnyShape):
    """A Llama 4 of true geometry, narrow, with small tiles: two layers, of which one has experts
    and looks at all, as every other one of Maverick has and every fourth does."""

    writer: ClassVar = "llama4"
    seed: int
    image_size: int = 112
    """Of a tile: 16 tokens."""
    tiles: int = 16
    """At most, without the whole picture."""
    chunk: int = 128
    """Tokens that the other layer of the decoder looks at; as published, more than a picture has
    rows of tiles."""


@dataclass(frozen=True, slots=True)
class CohereShape(AnyShape):
    """A Command A Vision of true geometry, narrow, with small tiles."""

    writer: ClassVar = "cohere"
    seed: int
    image_size: int = 112
    """Of a tile: 16 tokens."""
    tiles: int = 12
    """At most, without the whole picture."""
    window: int = 128
    """Tokens that every other layer of the decoder looks back at."""


@dataclass(frozen=True, slots=True)
class MiniCPMShape(AnyShape):
    """A MiniCPM-V of true geometry, narrow, with small slices."""

    writer: ClassVar = "minicpm"
    version: str
    """`4.6` or `4.7`."""

    text_layers: int
    seed: int
    image_size: int = 224
    """Side of a slice if it is a square: 16 tokens, each of 4 x 4 patches."""


@dataclass(frozen=True, slots=True)
class ResamplerShape(AnyShape):
    """A MiniCPM-V with a resampler, of true geometry, narrow, with small slices."""

    writer: ClassVar = "minicpmv"
    version: str
    """`2.6`, `4.0` or `4.5`."""

    seed: int
    image_size: int = 112
    """Side of a slice if it is a square: 64 patches."""
    queries: int = 16
    """Tokens of a slice."""


@dataclass(frozen=True, slots=True)
class MolmoShape(AnyShape):
    """A Molmo2 of true geometry, narrow, with small crops."""

    writer: ClassVar = "molmo"
    text_layers: int
    seed: int
    image_size: int = 126
    """Of a crop: an odd number of patches on a side, as published, so 25 tokens with an edge."""
    margins: tuple[int, int] = (2, 2)
    """Patches that a crop shares with the ones beside it."""
    crops: int = 8
    """At most, without the whole picture."""


@dataclass(frozen=True, slots=True)
class NemotronShape(AnyShape):
    """A Nemotron Nano VL of true geometry, with a narrow decoder and small pictures."""

    writer: ClassVar = "nemotron"
    seed: int
    image_size: int = 128
    """Of a tile: 16 tokens."""
    is_omni: bool = False
    """Whether pictures are of any shape, not tiles, with audio beside."""
    patches: tuple[int, int] = (64, 1024)
    """Of a picture of any shape, at least and at most: 16 and 256 tokens."""


@dataclass(frozen=True, slots=True)
class Lfm2Shape(AnyShape):
    """An LFM2-VL of true geometry, narrow, with small tiles."""

    writer: ClassVar = "lfm2"
    seed: int
    tile: int = 128
    """Side of a tile in pixels: 16 tokens, as many as the whole picture has at most."""
    least: int = 10
    """Tokens of a picture."""


@dataclass(frozen=True, slots=True)
class StepShape(AnyShape):
    """A Step3-VL of true geometry, narrow; the size of its pictures and windows is vLLM's."""

    writer: ClassVar = "step"
    seed: int
    width: int = 32
    layers: int = 2
    """Of the tower."""
