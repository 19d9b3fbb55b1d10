"""What the contract of a family is checked on: checkpoints, images and budgets, and what vLLM's own
processor makes of a message with them. The contract is in three files:

- `test_layout_contract`: what a family says of an image from its size, and of methods;
- `test_prompt_contract`: the prompt has the layout's tokens, pruned exactly the kept count of them;
- `test_image_contract`: the processor's batch becomes images of these layouts.

`test_video_contract` has that of a family that prunes videos.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mistral_words import ids_of
from nightly import NIGHTLY
from PIL import Image
from vllm.multimodal.parse import ImageSize
from vllm.tokenizers.mistral import MistralTokenizer

from vllm_pruner.compat.versions import at_least
from vllm_pruner.family import Family
from vllm_pruner.worker.captured_packed_tower import CapturedPackedTower
from vllm_pruner.worker.dots_tower import DotsTower
from vllm_pruner.worker.minimax_tower import MiniMaxTower
from vllm_pruner.worker.siglip2_tower import Siglip2Tower

__all__ = [
    "BLOCKS",
    "BUDGETS",
    "CHECKPOINTS",
    "ENCODED",
    "ENCODERS",
    "LACKING",
    "LARGE",
    "NARROWED",
    "NEWER",
    "PACKED",
    "PROCESSORS",
    "RELATIVES",
    "SERVED",
    "SIZES",
    "batched",
    "image_size",
    "is_served",
    "processed",
    "processed_images",
    "skip_unless_served",
]

CHECKPOINTS = [
    "demo",
    "demo-siglip",
    "demo-next",
    "demo-onevision",
    "demo-internvl-chat",
    "demo-internvl",
    "demo-idefics3",
    "demo-smolvlm",
    "demo-mistral3",
    "demo-pixtral",
    "demo-gemma3",
    "demo-gemma4",
    "demo-kimi",
    "demo-kimi-k2.5",
    "demo-llama4",
    "demo-minicpm4.6",
    "demo-minicpm4.7",
    "demo-minicpmv4.5",
    "demo-molmo2",
    "demo-cohere2",
    "demo-nemotron",
    "demo-nemotron-omni",
    "demo-lfm2",
    "demo-step",
    "demo-glm4v",
    "demo-glm4v-moe",
    "demo-glm-ocr",
    "demo-paddleocr",
    "demo-dots-ocr",
    "demo-lightonocr",
    "demo-keye",
    "demo-keye1.5",
    "demo-ernie4.5",
    "demo-qwen2",
    "demo-qwen2.5",
    "demo-qwen3",
    "demo-qwen3-moe",
    "demo-qwen3.5",
    "demo-qwen3.5-moe",
]
RELATIVES = [
    "demo-interns1",
    "demo-interns2",
    "demo-mobius",
    "demo-exaone4.5",
    "demo-cosmos3",
    "demo-skywork",
    "demo-qianfan",
    "demo-qwen4",
    "demo-qwen2.5-omni",
    "demo-qwen3-omni",
]
"""Models built from the parts of the others: `test_relatives` is about what is their own, and all
of the contract is checked on them every night."""

SERVED = [each for each in RELATIVES if at_least((0, 32)) or each != "demo-qwen3-omni"]
"""Those of them that this vLLM serves: 0.31 does not place Qwen3-Omni's images right."""

ENCODERS = ["demo-glm5", "demo-kimi-k3", "demo-minimax-m3"]
"""Models whose decoders vLLM does not run on a CPU: built without, as by an engine that only
encodes."""

BLOCKS = ["demo-deepseek-v4"]
"""The same of models whose pictures vLLM has for GPUs alone, so that no server here is started:
with `tower_kernels` in place they are checked in the tests' process."""

NARROWED = ["demo-deepseek-ocr"]
"""Models whose towers have the published sizes whatever the checkpoint says. With `tower_kernels`
in place vLLM's are as narrow as the demo's; no server here is started with one."""

_MINICPM = ("demo-minicpm4.6", "demo-minicpm4.7", "demo-minicpmv4.5")
NEWER = [] if at_least((0, 32)) else ["demo-glm5", "demo-kimi-k3", *_MINICPM, *BLOCKS]
"""Models that this vLLM does not serve: 0.31 has a processor of its own for GLM-5-Next, and for
Kimi-K3 only the checkpoint's, counts the slices of MiniCPM-V otherwise than it cuts them, and
DeepSeek-V4 has no pictures there."""

LACKING = (
    set()
    if at_least((0, 32))
    else {"MiniCPMV4_7ForConditionalGeneration", "DeepseekV4ForConditionalGeneration"}
)
"""Architectures that this vLLM does not have: MiniCPM-V 4.7 and DeepSeek-V4's are new in 0.32."""

ENCODED = [each for each in ENCODERS if each not in NEWER]

PACKED = [each for each in ENCODED if each == "demo-glm5"]
"""Those of them with a `PackedTower`."""

LARGE = ["demo-step"]
"""Checkpoints whose pictures vLLM makes as large as published ones, so slow: for the night. Each
has a file of its own for every day."""

PROCESSORS: list[Any] = [
    pytest.param((name, {}), marks=NIGHTLY if name in LARGE else ())
    for name in [*CHECKPOINTS, *ENCODED, *BLOCKS]
    if name not in NEWER
]
PROCESSORS += [pytest.param((name, {}), marks=NIGHTLY) for name in [*SERVED, *NARROWED]]
PROCESSORS.append(("demo-gemma3", {"do_pan_and_scan": True}))
"""With arguments of the server's for HF's processor."""

SIZES = [
    *((336, 336), (672, 672), (1, 1), (480, 640), (640, 480), (37, 501), (501, 37), (1000, 1501)),
    *((100, 300), (300, 100), (224, 112), (113, 224), (1, 400), (400, 1), (9, 100), (333, 335)),
    (196, 168),
]
"""Heights and widths: square, wide, high, tiny, and so narrow that crops are all padding; last one
that has most tokens of `demo-onevision`, which resamples larger ones."""

BUDGETS: list[dict[str, Any]] = [
    *({"rate": rate} for rate in (0.1, 0.5, 8 / 9, 0.95, 0.999)),
    *({"tokens": tokens} for tokens in (1, 2, 7, 64)),
]


def is_served(family: Family, size: tuple[int, int]) -> bool:
    """Qwen-VL's processors refuse pictures more than 200 times as long as wide; so do MiniMax-M3's
    and dots.ocr's. LFM2-VL's refuses one so long that it has more tokens than a tile, if it is
    large enough to have tiles, Step's one of more than 36 windows, which has no black around it."""
    if family.name.startswith("step"):
        return min(size) < 32 or max(size) <= 36 * min(size)
    if family.tower is Siglip2Tower and size[0] * size[1] > 128**2:
        return max(size) <= 16 * min(size)
    is_qwen = family.item_layout is not None or family.tower is CapturedPackedTower
    is_qwen |= family.tower in (MiniMaxTower, DotsTower)
    return not is_qwen or max(size) <= 200 * min(size)


def skip_unless_served(family: Family, size: tuple[int, int]) -> None:
    if not is_served(family, size):
        pytest.skip("too long and narrow")


def image_size(size: tuple[int, int]) -> ImageSize:
    """A size as vLLM has it."""
    return ImageSize(height=size[0], width=size[1])


def processed(processor: Any, settings: dict[str, Any], kind: str, data: list[Any]) -> Any:
    """What the engine would get of a message with images, or videos, and a question behind them."""
    items = processor.info.parse_mm_data({kind: data})
    tokenizer: Any = processor.info.get_tokenizer()
    if isinstance(tokenizer, MistralTokenizer):  # it has no template
        prompt: Any = ids_of(tokenizer, *data, "What?")
        return processor(prompt, items, hf_processor_mm_kwargs={"vtprune": settings})
    content = [{"type": kind}] * len(data) + [{"type": "text", "text": "What?"}]
    message = {"role": "user", "content": content}
    prompt = tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    return processor(prompt, items, hf_processor_mm_kwargs={"vtprune": settings})


def processed_images(processor: Any, settings: dict[str, Any], *sizes: tuple[int, int]) -> Any:
    """The same of images of noise of these sizes."""
    noise = np.random.default_rng(0)
    pixels = [noise.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    return processed(processor, settings, "image", [Image.fromarray(each) for each in pixels])


def batched(items: list[Any]) -> dict[str, Any]:
    """The fields of items together, as vLLM hands them to a model."""
    return {
        name: field.field.reduce_data([item[name] for item in items])
        for name, field in items[0].items()
    }
