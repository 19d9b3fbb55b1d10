"""The demo reader: the committed checkpoint reads small print, and the floor leaves room for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration
from vtprune_evaluate.pages import SIDE, SQUARE, draw_page, question_of

from vllm_pruner.picture import measure
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.floor import floored
from vllm_pruner.settings.limits import Limits

READER = Path(__file__).parents[1] / "demo" / "reader"
TOKENS = SIDE * SIDE


@torch.no_grad()
def test_it_reads() -> None:
    processor = AutoProcessor.from_pretrained(READER)
    model = LlavaForConditionalGeneration.from_pretrained(READER, dtype=torch.float32)
    wrong = []
    for seed in range(5):
        page = draw_page(7, seed)
        for letter in sorted(page.codes)[:3]:
            text = [{"type": "image"}, {"type": "text", "text": question_of(letter)}]
            messages = [{"role": "user", "content": text}]
            prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
            image = Image.fromarray(page.pixels)
            inputs = processor(text=prompt, images=image, return_tensors="pt")
            said = processor.tokenizer.decode(model(**inputs).logits[0, -1].argmax()).strip()
            wrong += [(seed, letter, said)] if said != page.codes[letter] else []
    assert not wrong


@pytest.mark.parametrize("rate", [8 / 9, 15 / 16], ids=str)
def test_the_floor_keeps_as_many_tokens_as_have_print(rate: float) -> None:
    config = PruneConfig.parse({"rate": rate})
    for seed in range(60):
        pixels = draw_page(7, seed).pixels
        squares = pixels[..., 0].reshape(SIDE, SQUARE, SIDE, SQUARE)
        printed = int((squares.max((1, 3)) != squares.min((1, 3))).sum())
        picture = measure(Image.fromarray(pixels))
        assert config.keep_count(TOKENS) < printed / 2
        assert printed <= floored(config, picture, TOKENS, Limits()).keep_count(TOKENS)
