"""Shapes of the demo models: LLaVA-1.5's pipeline (336 pixels, patch 14, 576 tokens), narrower,
LLaVA-NeXT's with smaller crops as well, and Qwen-VL's with images of any resolution."""

from dataclasses import dataclass
from typing import ClassVar

IMAGE_SIZE, PATCH_SIZE, HEAD_SIZE = 336, 14, 64


class AnyShape:
    """What they have in common."""

    __slots__ = ()
    writer: ClassVar[str]
    """The module whose `write(shape, folder)` writes such a model."""


@dataclass(frozen=True, slots=True)
class Shape(AnyShape):
    """What differs between the models."""

    writer: ClassVar = "checkpoint"
    vision_width: int
    vision_layers: int
    text_width: int
    text_layers: int
    text_mlp: int
    tower: str = "clip"
    dtype: str = "float32"
    seed: int | None = 0
    """None: no weights; served with `--load-format dummy`."""
    image_size: int = IMAGE_SIZE
    text_head_size: int = HEAD_SIZE
    grids: tuple[tuple[int, int], ...] = ()
    """LLaVA-NeXT's grids of crops, rows and columns; without any it is a LLaVA-1.5."""

    @property
    def strategy(self) -> str:
        """CLIP's class token is dropped; SigLIP has none."""
        return "default" if self.tower == "clip" else "full"


@dataclass(frozen=True, slots=True)
class QwenShape(AnyShape):
    """A Qwen-VL of true geometry, narrow."""

    writer: ClassVar = "qwen"
    version: str
    """`2`, `2.5`, `3`, `3-moe`, `3.5` or `3.5-moe`."""

    text_layers: int
    seed: int | None
    """None: no weights; served with `--load-format dummy`."""
    text_width: int = 128
    text_mlp: int = 256
    text_heads: tuple[int, int] = (2, 2)
    """Of queries, and of keys and values."""
    most_tokens: int = 256
    """Of an image."""
    dtype: str = "float32"
    tower: tuple[int, int, int, int] = (4, 128, 256, 2)
    """Layers, width, width of the feed-forward part, heads."""
    whole: tuple[int, ...] = (1, 3)
    """Layers of 2.5's tower that look at the whole image, the last one as in the published ones."""


@dataclass(frozen=True, slots=True)
class GlmShape(AnyShape):
    """A GLM-V of true geometry, narrow."""

    writer: ClassVar = "glm"
    text_layers: int
    seed: int
    experts: bool = False


@dataclass(frozen=True, slots=True)
class GlmOcrShape(AnyShape):
    """A GLM-OCR of true geometry, narrow."""

    writer: ClassVar = "glm_ocr"
    text_layers: int
    seed: int


@dataclass(frozen=True, slots=True)
class PaddleShape(AnyShape):
    """A PaddleOCR-VL of true geometry, narrow."""

    writer: ClassVar = "paddle"
    text_layers: int
    seed: int


@dataclass(frozen=True, slots=True)
class KeyeShape(AnyShape):
    """A Keye-VL of true geometry, narrow."""

    writer: ClassVar = "keye"
    name: str
    """`Keye` or `KeyeVL1_5`, as its classes are called."""

    text_layers: int
    seed: int
    tokens: int = 256
    """Of an image at most."""


@dataclass(frozen=True, slots=True)
class ErnieShape(AnyShape):
    """An ERNIE-4.5-VL of true geometry, narrow."""

    writer: ClassVar = "ernie"
    text_layers: int
    seed: int
    tokens: int = 256
    """Of an image at most, and four times those of a video's frame."""
    time: int = 20
    """Rotary pairs of a head that tell the time, as published."""


@dataclass(frozen=True, slots=True)
class Glm5Shape(AnyShape):
    """A GLM-5-Next's tower of true geometry, narrow."""

    writer: ClassVar = "glm5"
    seed: int
    tokens: int = 256
    """Of an image at most."""
    video: int = 2048
    """Of a video at most."""


@dataclass(frozen=True, slots=True)
class InternShape(AnyShape):
    """An InternVL of true geometry, narrow, with small tiles."""

    writer: ClassVar = "intern"
    text_layers: int
    seed: int
    image_size: int = 168
    """Of a tile: 36 tokens."""
    tiles: int = 6
    """At most, without the thumbnail."""
    chat: bool = True
    """As its authors publish it, or as transformers does."""
    text: str = "qwen2"
    """Its decoder, or `qwen3`."""


@dataclass(frozen=True, slots=True)
class IdeficsShape(AnyShape):
    """An Idefics3 or SmolVLM of true geometry, narrow, with small tiles."""

    writer: ClassVar = "idefics"
    text_layers: int
    seed: int
    image_size: int
    """Of a tile."""
    scale: int
    """Of patches whose square is a token."""
    tiles: int
    """On the longer side of a picture."""
    smol: bool = True


@dataclass(frozen=True, slots=True)
class OnevisionShape(AnyShape):
    """A LLaVA-OneVision of true geometry, narrow, with small crops."""

    writer: ClassVar = "onevision"
    text_layers: int
    seed: int
    image_size: int = 56
    """Of a crop: 16 tokens."""
    crops: int = 4
    """Rows, and columns, of crops at most."""


@dataclass(frozen=True, slots=True)
class GemmaShape(AnyShape):
    """A Gemma 3 of true geometry, narrow, with small tiles."""

    writer: ClassVar = "gemma"
    seed: int
    image_size: int = 448
    """Of a tile: 64 tokens of 4 x 4 patches."""
    window: int = 128
    """Tokens that every other layer of the decoder looks back at; as published, more than a tile
    has."""

    @property
    def tokens(self) -> int:
        return (self.image_size // PATCH_SIZE // 4) ** 2


@dataclass(frozen=True, slots=True)
class Gemma4Shape(AnyShape):
    """A Gemma 4 of true geometry, narrow: with the embeddings for each layer and the shared keys of
    the small published ones, and the attention within a picture of the large ones."""

    writer: ClassVar = "gemma4"
    seed: int
    tokens: int = 70
    """Of an image at most."""
    window: int = 128
    """Tokens that every other layer of the decoder looks back at; as published, more than an image
    has."""


@dataclass(frozen=True, slots=True)
class MistralShape(AnyShape):
    """A Mistral Small 3 of true geometry, narrow, in the form of transformers."""

    writer: ClassVar = "mistral"
    text_layers: int
    seed: int
    longest: int = 448
    """Side of an image at most: 16 tokens."""


@dataclass(frozen=True, slots=True)
class PixtralShape(MistralShape):
    """The same in Mistral's own form."""

    writer: ClassVar = "pixtral"
    merges: bool = True
    """Whether a token is 2 x 2 patches, or one, as in the first Pixtral."""


@dataclass(frozen=True, slots=True)
class KimiShape(AnyShape):
    """A Kimi-VL of true geometry, narrow."""

    writer: ClassVar = "kimi"
    text_layers: int
    seed: int
    patches: int = 1024
    """Of an image, about: 256 tokens."""


@dataclass(frozen=True, slots=True)
class KimiK25Shape(KimiShape):
    """A Kimi-K2.5 of true geometry, narrow."""

    writer: ClassVar = "kimi_k25"
    frames: int = 4
    """Of a part of a video, of which its tower makes as many tokens as of an image."""


@dataclass(frozen=True, slots=True)
class KimiK3Shape(AnyShape):
    """A Kimi-K3's tower of true geometry, narrow."""

    writer: ClassVar = "kimi_k3"
    seed: int
    patches: int = 1024
    """Of an image, about: 256 tokens."""


@dataclass(frozen=True, slots=True)
class DeepseekShape(AnyShape):
    """A DeepSeek-V4's tower of true geometry, narrow."""

    writer: ClassVar = "deepseek"
    seed: int
    tokens: int = 192
    """Of the block of an image, with its breaks and padding, at most."""
    pixels: int = 4 * (3 * PATCH_SIZE) ** 2
    """Of an image at least: 4 tokens."""


@dataclass(frozen=True, slots=True)
class MiniMaxShape(AnyShape):
    """A MiniMax-M3's tower of true geometry, narrow."""

    writer: ClassVar = "minimax"
    seed: int
    tokens: int = 256
    """Of an image at most, and of a frame of a video."""


@dataclass(frozen=True, slots=True)
class RelativeShape(AnyShape):
    """A model that vLLM builds from the parts of one of the others, as narrow."""

    writer: ClassVar = "relatives"
    name: str
    """Of `relatives.WRITERS`."""
    seed: int
