"""The models that are built, by name, with their shapes."""

from reader_shapes import DeepseekOcrShape, DotsShape, GlmOcrShape, LightOnShape, PaddleShape
from shapes import (
    AnyShape,
    DeepseekShape,
    ErnieShape,
    Gemma4Shape,
    GemmaShape,
    Glm5Shape,
    GlmShape,
    IdeficsShape,
    InternShape,
    KeyeShape,
    KimiK3Shape,
    KimiK25Shape,
    KimiShape,
    MiniMaxShape,
    MistralShape,
    OnevisionShape,
    PixtralShape,
    QwenShape,
    RelativeShape,
    Shape,
)
from tile_shapes import (
    CohereShape,
    Lfm2Shape,
    Llama4Shape,
    MiniCPMShape,
    MolmoShape,
    NemotronShape,
    ResamplerShape,
    StepShape,
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
    "demo-glm-ocr": GlmOcrShape(2, seed=28),
    "demo-paddleocr": PaddleShape(2, seed=29),
    "demo-dots-ocr": DotsShape(2, seed=33),
    "demo-lightonocr": LightOnShape(2, seed=34),
    # 256 tokens of the whole picture, and up to 6 crops of 100 before it, with marks between.
    "demo-deepseek-ocr": DeepseekOcrShape(2, seed=36),
    "demo-keye": KeyeShape("Keye", 2, seed=34),
    "demo-keye1.5": KeyeShape("KeyeVL1_5", 2, seed=35),
    # With experts of text and of vision, and videos whose frames are joined two by two.
    "demo-ernie4.5": ErnieShape(3, seed=30),
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
    "demo-pixtral": PixtralShape(2, seed=17),
    "demo-pixtral-12b": PixtralShape(2, seed=18, longest=280, merges=False),
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
    # Up to 9 slices of 16 tokens, and the whole picture before them, whatever their shapes.
    "demo-minicpmv2.6": ResamplerShape("2.6", seed=30),
    "demo-minicpmv4.0": ResamplerShape("4.0", seed=31),
    "demo-minicpmv4.5": ResamplerShape("4.5", seed=32),
    # Up to 10 tiles of 16 tokens, each with its name in front, and about 16 of the whole picture.
    "demo-lfm2": Lfm2Shape(seed=26),
    # About 256 tokens an image at its own resolution, twice as many if it is very narrow.
    "demo-kimi": KimiShape(2, seed=15),
    "demo-kimi-k2.5": KimiK25Shape(2, seed=22),
    # For an engine that only encodes: no decoder.
    "demo-kimi-k3": KimiK3Shape(seed=24),
    # Up to 192 tokens an image with its breaks; for an engine that only encodes.
    "demo-deepseek-v4": DeepseekShape(seed=33),
    # Up to 256 tokens an image; its decoder runs on no CPU.
    "demo-minimax-m3": MiniMaxShape(seed=25),
    # 25 tokens of the whole picture and up to 8 crops that overlap, with marks between.
    "demo-molmo2": MolmoShape(2, seed=33),
    # 169 tokens of the whole picture and 81 of each window of it, up to 36.
    "demo-step": StepShape(seed=36),
    # Up to 12 tiles of 16 tokens and a thumbnail: at most 208; up to 256 tokens an image of any
    # shape, audio beside. vLLM runs this model in bfloat16 only.
    "demo-nemotron": NemotronShape(seed=26),
    "demo-nemotron-omni": NemotronShape(seed=27, is_omni=True),
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
