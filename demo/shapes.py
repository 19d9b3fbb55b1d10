"""Shapes of the demo models: LLaVA-1.5's pipeline (336 pixels, patch 14, 576 tokens), narrower,
LLaVA-NeXT's with smaller crops as well, and Qwen-VL's with images of any resolution."""

from dataclasses import dataclass

IMAGE_SIZE, PATCH_SIZE, HEAD_SIZE = 336, 14, 64


@dataclass(frozen=True, slots=True)
class Shape:
    """What differs between the models."""

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
class QwenShape:
    """A Qwen-VL of true geometry, narrow."""

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
class GlmShape:
    """A GLM-V of true geometry, narrow."""

    text_layers: int
    seed: int
    experts: bool = False


@dataclass(frozen=True, slots=True)
class Glm5Shape:
    """A GLM-5-Next's tower of true geometry, narrow."""

    seed: int
    tokens: int = 256
    """Of an image at most."""
    video: int = 2048
    """Of a video at most."""


@dataclass(frozen=True, slots=True)
class InternShape:
    """An InternVL of true geometry, narrow, with small tiles."""

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
class IdeficsShape:
    """An Idefics3 or SmolVLM of true geometry, narrow, with small tiles."""

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
class OnevisionShape:
    """A LLaVA-OneVision of true geometry, narrow, with small crops."""

    text_layers: int
    seed: int
    image_size: int = 56
    """Of a crop: 16 tokens."""
    crops: int = 4
    """Rows, and columns, of crops at most."""


@dataclass(frozen=True, slots=True)
class GemmaShape:
    """A Gemma 3 of true geometry, narrow, with small tiles."""

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
class Gemma4Shape:
    """A Gemma 4 of true geometry, narrow: with the embeddings for each layer and the shared keys of
    the small published ones, and the attention within a picture of the large ones."""

    seed: int
    tokens: int = 70
    """Of an image at most."""
    window: int = 128
    """Tokens that every other layer of the decoder looks back at; as published, more than an image
    has."""


@dataclass(frozen=True, slots=True)
class MistralShape:
    """A Mistral Small 3 of true geometry, narrow."""

    text_layers: int
    seed: int
    longest: int = 448
    """Side of an image at most: 16 tokens."""
    native: bool = False
    """In Mistral's own form, or as transformers has it."""
    merges: bool = True
    """Whether a token is 2 x 2 patches, or one, as in the first Pixtral; then in its own form."""


@dataclass(frozen=True, slots=True)
class KimiShape:
    """A Kimi-VL or Kimi-K2.5 of true geometry, narrow."""

    text_layers: int
    seed: int
    patches: int = 1024
    """Of an image, about: 256 tokens."""
    frames: int = 1
    """Of a part of a video, of which K2.5's tower makes as many tokens as of an image: 4."""


@dataclass(frozen=True, slots=True)
class KimiK3Shape:
    """A Kimi-K3's tower of true geometry, narrow."""

    seed: int
    patches: int = 1024
    """Of an image, about: 256 tokens."""


@dataclass(frozen=True, slots=True)
class MiniMaxShape:
    """A MiniMax-M3's tower of true geometry, narrow."""

    seed: int
    tokens: int = 256
    """Of an image at most, and of a frame of a video."""


@dataclass(frozen=True, slots=True)
class Llama4Shape:
    """A Llama 4 of true geometry, narrow, with small tiles: two layers, of which one has experts
    and looks at all, as every other one of Maverick has and every fourth does."""

    seed: int
    image_size: int = 112
    """Of a tile: 16 tokens."""
    tiles: int = 16
    """At most, without the whole picture."""
    chunk: int = 128
    """Tokens that the other layer of the decoder looks at; as published, more than a picture has
    rows of tiles."""


@dataclass(frozen=True, slots=True)
class CohereShape:
    """A Command A Vision of true geometry, narrow, with small tiles."""

    seed: int
    image_size: int = 112
    """Of a tile: 16 tokens."""
    tiles: int = 12
    """At most, without the whole picture."""
    window: int = 128
    """Tokens that every other layer of the decoder looks back at."""


@dataclass(frozen=True, slots=True)
class MiniCPMShape:
    """A MiniCPM-V of true geometry, narrow, with small slices."""

    version: str
    """`4.6` or `4.7`."""

    text_layers: int
    seed: int
    image_size: int = 224
    """Side of a slice if it is a square: 16 tokens, each of 4 x 4 patches."""


@dataclass(frozen=True, slots=True)
class RelativeShape:
    """A model that vLLM builds from the parts of one of the others, as narrow."""

    name: str
    """Of `relatives.WRITERS`."""
    seed: int


AnyShape = (
    Shape
    | QwenShape
    | GlmShape
    | Glm5Shape
    | InternShape
    | IdeficsShape
    | OnevisionShape
    | MistralShape
    | GemmaShape
    | Gemma4Shape
    | KimiShape
    | KimiK3Shape
    | MiniMaxShape
    | Llama4Shape
    | MiniCPMShape
    | CohereShape
    | RelativeShape
)

SHAPES: dict[str, AnyShape] = {
    "demo": Shape(128, 4, 256, 2, 704),
    "demo-siglip": Shape(128, 4, 256, 2, 704, tower="siglip", seed=1),
    # LLaVA-NeXT's five grids with crops of 64 tokens: an image has 192 to 336 tokens.
    "demo-next": Shape(
        *(128, 4, 256, 2, 704),
        seed=2,
        image_size=112,
        grids=((1, 2), (2, 1), (2, 2), (3, 1), (1, 3)),
    ),
    # Up to 256 tokens an image, in windows and with M-RoPE; with DeepStack; with experts.
    "demo-qwen2": QwenShape("2", 2, seed=6),
    "demo-qwen2.5": QwenShape("2.5", 2, seed=3),
    "demo-qwen3": QwenShape("3", 4, seed=4),
    "demo-qwen3-moe": QwenShape("3-moe", 4, seed=5),
    # vLLM runs linear attention on a CPU in bfloat16 only.
    "demo-qwen3.5": QwenShape("3.5", 4, seed=11, dtype="bfloat16"),
    "demo-qwen3.5-moe": QwenShape("3.5-moe", 4, seed=12, dtype="bfloat16"),
    "demo-glm4v": GlmShape(2, seed=9),
    "demo-glm4v-moe": GlmShape(3, seed=10, experts=True),
    # For an engine that only encodes: no decoder.
    "demo-glm5": Glm5Shape(seed=23),
    # Up to six tiles of 36 tokens and a thumbnail: at most 252.
    "demo-internvl-chat": InternShape(2, seed=7),
    "demo-internvl": InternShape(2, seed=8, chat=False),
    # Up to 16 and 9 tiles of 16 tokens and a thumbnail, each with its name in front: at most 272
    # and 160.
    "demo-smolvlm": IdeficsShape(2, seed=9, image_size=168, scale=3, tiles=4),
    "demo-idefics3": IdeficsShape(2, seed=10, image_size=112, scale=2, tiles=3, smol=False),
    # Up to 16 crops of 16 tokens, of which about as many as of nine are made, and a base crop.
    "demo-onevision": OnevisionShape(2, seed=11),
    # Up to 256 tokens an image, with breaks between rows.
    "demo-mistral3": MistralShape(2, seed=13),
    "demo-pixtral": MistralShape(2, seed=17, native=True),
    "demo-pixtral-12b": MistralShape(2, seed=18, longest=280, native=True, merges=False),
    # 64 tokens an image and each of its crops, a tower's patches averaged four by four.
    "demo-gemma3": GemmaShape(seed=14),
    # Up to 70 tokens an image, whatever its size, a tower's patches averaged three by three.
    "demo-gemma4": Gemma4Shape(seed=16),
    # Up to 16 tiles of 16 tokens and the whole picture, separators between: at most 272.
    "demo-llama4": Llama4Shape(seed=17),
    # Up to 12 tiles of 16 tokens and the whole picture, a break behind each: at most 208.
    "demo-cohere2": CohereShape(seed=25),
    # Up to 9 slices of about 16 tokens, and the whole picture before them; with canvas positions.
    "demo-minicpm4.6": MiniCPMShape("4.6", 4, seed=23),
    "demo-minicpm4.7": MiniCPMShape("4.7", 4, seed=24),
    # About 256 tokens an image at its own resolution, twice as many if it is very narrow.
    "demo-kimi": KimiShape(2, seed=15),
    "demo-kimi-k2.5": KimiShape(2, seed=22, frames=4),
    # For an engine that only encodes: no decoder.
    "demo-kimi-k3": KimiK3Shape(seed=24),
    # Up to 256 tokens an image; its decoder runs on no CPU.
    "demo-minimax-m3": MiniMaxShape(seed=25),
    # Tiles as InternVL's, in its transformers form and in its authors'.
    "demo-interns1": RelativeShape("interns1", seed=17),
    "demo-skywork": RelativeShape("skywork", seed=18),
    "demo-qianfan": RelativeShape("qianfan", seed=19),
    # Grids as Qwen-VL's, the first two with the weights of demo-qwen3.5-moe and demo-qwen3.
    "demo-interns2": RelativeShape("interns2", seed=12),
    "demo-mobius": RelativeShape("mobius", seed=25),
    "demo-cosmos3": RelativeShape("cosmos3", seed=4),
    "demo-exaone4.5": RelativeShape("exaone4.5", seed=20),
    "demo-qwen4": RelativeShape("qwen4", seed=24),
    # Grids as Qwen-VL's, audio beside.
    "demo-qwen2.5-omni": RelativeShape("qwen2.5-omni", seed=21),
    "demo-qwen3-omni": RelativeShape("qwen3-omni", seed=22),
    # 201 M parameters in the decoder, 3 M in the tower: prefill costs enough to be measured.
    "bench": Shape(192, 6, 1024, 16, 2560, dtype="bfloat16", seed=None),
    # The same with 25 M and 0.8 M, for processors that do not multiply bfloat16 (no AVX-512): a
    # stock request takes about a second here too.
    "bench-small": Shape(128, 4, 512, 8, 1280, seed=None),
    # As much decoder as `bench` has, behind Qwen2.5-VL's tower (1.6 M with the merger), with up to
    # 1,024 tokens an image; heads are 128 wide as published, four of queries to one of keys.
    "bench-qwen": QwenShape(
        *("2.5", 16, None, 1024, 3072, (8, 2)), most_tokens=1024, dtype="bfloat16"
    ),
    # LLaVA-1.5-7B but for its vocabulary (ours has an eighth of the words), for a GPU.
    "llava-7b": Shape(
        *(1024, 24, 4096, 32, 11008), dtype="bfloat16", seed=None, text_head_size=128
    ),
    # The same with LLaVA-NeXT's crops, and Qwen2.5-VL-7B, but for their vocabularies.
    "llava-next-7b": Shape(
        *(1024, 24, 4096, 32, 11008),
        dtype="bfloat16",
        seed=None,
        text_head_size=128,
        grids=((1, 2), (2, 1), (2, 2), (3, 1), (1, 3)),
    ),
    "qwen2.5-vl-7b": QwenShape(
        *("2.5", 28, None, 3584, 18944, (28, 4)),
        most_tokens=1280,
        dtype="bfloat16",
        tower=(32, 1280, 3420, 16),
        whole=(7, 15, 23, 31),
    ),
    # The decoder of `bench` behind a tower of CLIP-L/14-336's size: 300 M parameters.
    "bench-clip-l": Shape(1024, 24, 1024, 16, 2560, dtype="bfloat16", seed=None),
}
