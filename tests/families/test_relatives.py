"""Models that vLLM builds from the parts of others, by their classes in vLLM, without an engine:
what the decoder gets of pictures and videos, and where it stands, beside stock vLLM.

The contract of all families is checked on them every night, and so are answers (`tests/server`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from contract import RELATIVES, batched
from PIL import Image
from pruned_model import pruned_model, stock_model
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFeatureSpec
from vllm_process import MODELS

from vllm_pruner.layout.positions import split

pytestmark = pytest.mark.slow

_NOISE = np.random.default_rng(0)
PICTURES = [
    Image.fromarray(_NOISE.integers(0, 256, (*size, 3), np.uint8))
    for size in ((224, 336), (420, 120))
]
FACTS = {"fps": 2.0, "total_num_frames": 6, "duration": 3.0, "do_sample_frames": False}
FACTS["frames_indices"] = [0, 1, 2, 3, 4, 5]
CLIP = (_NOISE.integers(0, 256, (6, 112, 112, 3), np.uint8), FACTS)

MARKS = {
    "demo-interns1": "<IMG_CONTEXT><|video_pad|>",
    "demo-interns2": "<|vision_start|><|image_pad|><|vision_end|><|video_pad|>",
    "demo-exaone4.5": "<vision><|image_pad|></vision><|video_pad|>",
    "demo-cosmos3": "<|vision_start|><|image_pad|><|vision_end|><|video_pad|>",
    "demo-skywork": "<IMG_CONTEXT>",
    "demo-qianfan": "<IMG_CONTEXT>",
}
"""What is no text of the question, by checkpoint: all tokens of an image or video and around it."""

PLAIN = [name for name in RELATIVES if name not in ("demo-interns2", "demo-cosmos3")]
FILMED = [name for name in RELATIVES if "<|video_pad|>" in MARKS[name]]


@dataclass
class Side:
    """One of the two, stock or pruning."""

    config: Any
    model: Any
    chosen: list[list[int]] = field(default_factory=list)
    """What was kept of each item of the last batch."""

    def __post_init__(self) -> None:
        self.processor = MULTIMODAL_REGISTRY.create_processor(self.config.model_config)

    def prompt(self, kind: str, data: list[Any], **settings: Any) -> Any:
        """What the engine gets of a message with these pictures or videos."""
        info = self.processor.info
        content = [each for _ in data for each in ({"type": kind}, {"type": "text", "text": "So?"})]
        template: Any = info.get_tokenizer().apply_chat_template
        prompt = template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        kwargs = {"vtprune": settings} if settings else {}
        return self.processor(
            prompt, info.parse_mm_data({kind: data}), hf_processor_mm_kwargs=kwargs
        )

    def rows(self, kind: str, output: Any) -> list[torch.Tensor]:
        """What the decoder gets of the pictures or videos of a prompt, all in one batch."""
        self.chosen.clear()
        with torch.inference_mode():
            return list(self.model.embed_multimodal(**batched(output["mm_kwargs"][kind])))

    def positions(
        self, kind: str, output: Any, rows: list[torch.Tensor] | None = None, step: int = 4096
    ) -> Any:
        """Of all tokens of a prompt, once the decoder was fed these rows, in steps of so many
        tokens; and the offset behind."""
        places, ids = output["mm_placeholders"][kind], output["prompt_token_ids"]
        items = enumerate(zip(output["mm_kwargs"][kind], places, strict=True))
        features = [MultiModalFeatureSpec(item, kind, f"{n}", place) for n, (item, place) in items]
        positions, delta = self.model.get_mrope_input_positions(ids, features)
        for start in range(0, len(ids), step) if rows is not None else ():
            fed = []
            for place, all_rows in zip(places, rows or [], strict=True):
                inside = [
                    min(max(at - place.offset, 0), place.length) for at in (start, start + step)
                ]
                first, end = place.get_embeds_indices_in_range(*inside)
                fed += [all_rows[first:end]] if first < end else []
            _, positions, delta = self.model.recompute_mrope_positions(ids, fed, positions, start)
        return positions, delta


@dataclass
class Stock:
    """What stock vLLM made of the pictures, or of the video."""

    output: Any
    rows: list[torch.Tensor]
    positions: Any

    def at(self, pruned: Any, kind: str, chosen: list[list[int]]) -> list[int]:
        """Where each token of a pruned prompt stands in this one."""
        ids, at, start = self.output["prompt_token_ids"], [], 0
        kept = [torch.tensor(each) for each in chosen]
        for place, index in zip(self.output["mm_placeholders"][kind], kept, strict=True):
            embeds = place.is_embed
            visual = torch.ones(place.length, dtype=torch.bool) if embeds is None else embeds
            stays = ~visual
            stays[visual.nonzero().flatten()[index]] = True
            at += range(start, place.offset)
            at += (place.offset + stays.nonzero().flatten()).tolist()
            start = place.offset + place.length
        at += range(start, len(ids))
        assert [ids[i] for i in at] == pruned["prompt_token_ids"]
        return at


@dataclass
class Pair:
    """A relative."""

    name: str
    stock: dict[str, Stock]
    ours: Side

    @property
    def dtype(self) -> torch.dtype:
        found: torch.dtype = self.ours.config.model_config.dtype
        return found

    def without_digits(self, rows: list[torch.Tensor]) -> list[torch.Tensor]:
        return rows if self.name in PLAIN else [split(each)[0] for each in rows]


ITEMS: dict[str, list[Any]] = {"image": PICTURES, "video": [CLIP]}


@pytest.fixture(scope="module", params=RELATIVES)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    name = request.param
    dtype = json.loads((MODELS / name / "config.json").read_text())["dtype"]
    flags = {"dtype": dtype, "trust_remote_code": True, "enforce_eager": True}
    kinds = ["image", "video"] if name in FILMED else ["image"]
    stock = {}
    with stock_model(name, **flags) as (config, model):
        assert type(model).__module__.startswith("vllm.model_executor.models")
        assert config.model_config.uses_mrope == (name not in PLAIN)
        side = Side(config, model)
        for kind in kinds:
            output = side.prompt(kind, ITEMS[kind])
            places = None if name in PLAIN else side.positions(kind, output)
            stock[kind] = Stock(output, side.rows(kind, output), places)
    with pruned_model(name, {}, **flags) as (config, model):
        ours = Side(config, model)
        model.on_selection = lambda _tokens, index, _layout: ours.chosen.extend(index.tolist())
        yield Pair(name, stock, ours)


def test_rate_0_is_stock_bit_for_bit(pair: Pair) -> None:
    for kind, stock in pair.stock.items():
        output = pair.ours.prompt(kind, ITEMS[kind], rate=0.0)
        assert output["prompt_token_ids"] == stock.output["prompt_token_ids"]
        rows = pair.ours.rows(kind, output)
        for found, expected in zip(pair.without_digits(rows), stock.rows, strict=True):
            assert torch.equal(found, expected)
        if stock.positions is not None:
            positions, delta = pair.ours.positions(kind, output, rows)
            assert torch.equal(positions, stock.positions[0]) and delta == stock.positions[1]


@pytest.mark.parametrize("settings", [{"rate": 1e-12}, {"rate": 0.5}, {"tokens": 7}], ids=str)
def test_kept_rows_are_those_of_stock_where_they_would_stand(
    pair: Pair, settings: dict[str, Any]
) -> None:
    """Exactly as many as asked for, ascending, with all other tokens of the prompt."""
    for kind, stock in pair.stock.items():
        output = pair.ours.prompt(kind, ITEMS[kind], **settings)
        rows = pair.ours.rows(kind, output)
        at = stock.at(output, kind, pair.ours.chosen)
        kept = zip(pair.without_digits(rows), stock.rows, pair.ours.chosen, strict=True)
        for found, all_rows, index in kept:
            of_all = {1e-12: len(all_rows), 0.5: round(len(all_rows) / 2)}
            assert len(index) == settings.get("tokens", of_all.get(settings.get("rate", 0)))
            assert index == sorted({*index})
            close = {} if pair.dtype == torch.float32 else {"atol": 0.05, "rtol": 0.05}
            torch.testing.assert_close(found, all_rows[index], **close)
        if stock.positions is not None:
            for step in (4096, 37, 7):
                positions, delta = pair.ours.positions(kind, output, rows, step)
                assert torch.equal(positions, stock.positions[0][:, at])
            assert delta + positions.shape[1] == sum(
                (stock.positions[1], stock.positions[0].shape[1])
            )


def test_a_prompt_without_a_budget_keeps_a_half(pair: Pair) -> None:
    """What the server does unless it is told otherwise."""
    output = pair.ours.prompt("image", PICTURES)
    rows = pair.ours.rows("image", output)
    whole = [len(each) for each in pair.stock["image"].rows]
    assert [len(each) for each in rows] == [round(each / 2) for each in whole]


def test_tokens_of_and_around_an_image_are_no_question(pair: Pair) -> None:
    info = pair.ours.processor.info
    ids = info.get_tokenizer()(MARKS[pair.name], add_special_tokens=False)["input_ids"]
    assert info.marks == {*ids}
    assert {*ids} - {info.video_token} <= {*pair.stock["image"].output["prompt_token_ids"]}


def test_videos_are_pruned_where_they_are_taken(pair: Pair) -> None:
    assert (pair.ours.model.family.videos is not None) == (pair.name in FILMED)
    assert ("video" in pair.ours.processor.info.get_supported_mm_limits()) == (pair.name in FILMED)
