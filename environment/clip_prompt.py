"""Messages with pictures and videos of noise, as vLLM's processors make prompts of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from vllm.multimodal import MULTIMODAL_REGISTRY

__all__ = ["Clip", "clip_prompt"]

Clip = tuple[int, int, int]
"""Frames, height and width of a video."""


def clip_prompt(
    config: Any,
    media: Sequence[tuple[int, int] | Clip],
    seed: Sequence[int],
    settings: dict[str, Any],
    question: str = "What?",
) -> Any:
    """Return what vLLM's processor makes of a message with pictures, videos and a question.

    Args:
        config: vLLM's, of the model.
        media: height and width of each picture, and the size of each video, in their order.
        seed: other pixels for other numbers.
        settings: of the request.
        question: what stands behind them.
    """
    processor = MULTIMODAL_REGISTRY.create_processor(config.model_config)
    draw = np.random.default_rng(seed)
    content: list[dict[str, str]] = []
    data: dict[str, list[Any]] = {"image": [], "video": []}
    for size in media:
        pixels = draw.integers(0, 256, (*size, 3), np.uint8)
        kind = "image" if len(size) == 2 else "video"
        made = Image.fromarray(pixels) if kind == "image" else (pixels, _facts(size[0]))
        data[kind].append(made)
        content.append({"type": kind})
    template: Any = processor.info.get_tokenizer().apply_chat_template
    message = {"role": "user", "content": [*content, {"type": "text", "text": question}]}
    return processor(
        template([message], add_generation_prompt=True, tokenize=False),
        processor.info.parse_mm_data({kind: each for kind, each in data.items() if each}),
        hf_processor_mm_kwargs={"vtprune": settings},
    )


def _facts(frames: int) -> dict[str, Any]:
    """Return what vLLM's readers say of a video with two frames a second."""
    facts: dict[str, Any] = {"fps": 2.0, "total_num_frames": frames, "duration": frames / 2}
    return {**facts, "frames_indices": [*range(frames)], "do_sample_frames": False}
