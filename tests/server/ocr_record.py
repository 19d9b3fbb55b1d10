"""Puts pages to a DeepSeek-OCR in this process, alone, again, together and in steps, and saves what
it answered: python ocr_record.py CHECKPOINT pruned|stock FILE

All is float32. vLLM's towers are made as narrow as the checkpoint's, for which it has no setting.
The file is read by `test_deepseek_ocr_engine`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from answer_record import answers
from launcher import compile_nothing
from narrow_towers import narrow_deepseek_ocr
from PIL import Image, ImageDraw
from position_record import PICTURES
from vllm import LLM

SETTINGS: list[dict[str, Any]] = [
    {"rate": 0.0},
    {},
    {"method": "vispruner", "rate": 0.5},
    {"method": "cdpruner", "tokens": 40},
]
CASES = [
    ("{}\nRead it.", ["page"]),
    ("{}\nRead it.\n", ["page"]),
    ("See {}\nand {}\n, then say.", ["page", "small"]),
    ("Nothing at all.", []),
]


def page() -> Image.Image:
    """Lines on the upper half of what is large enough for two crops, one above the other."""
    image = Image.new("RGB", (500, 1000), "white")
    draw = ImageDraw.Draw(image)
    for line in range(20):
        draw.text((40, 40 + 22 * line), f"Line {line} of a page, {line * 17} in all.", "black")
    return image


def main() -> None:
    compile_nothing()
    narrow_deepseek_ocr()
    checkpoint, kind, file = sys.argv[1:]
    PICTURES["page"] = page()
    more = {"mm_processor_kwargs": {"vtprune": {}}} if kind == "pruned" else {}
    llm = LLM(
        checkpoint,
        dtype="float32",
        max_model_len=4096,
        max_num_batched_tokens=4096,
        max_num_seqs=4,
        enforce_eager=True,
        block_size=32,
        limit_mm_per_prompt={"image": 2},
        **more,
    )
    asked = [None] if kind == "stock" else SETTINGS
    found = {json.dumps(each): answers(llm, CASES, "<image>", each) for each in asked}
    torch.save(found, file)


if __name__ == "__main__":
    main()
