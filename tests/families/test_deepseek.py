"""What is DeepSeek-V4's own: an image is a block of tokens whose ends stand where its decoder's
compressor needs them, in an order by pairs of rows. Everything before the decoder, beside stock
vLLM's classes for GPUs; of what the decoder does with a block this says nothing."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from beside_stock import ITEMS, Side, Stock
from contract import BLOCKS, NEWER, batched, processed
from PIL import Image
from pruned_model import pruned_model, stock_model, stock_processor
from pruning_processor import pruning_processor
from vllm.exceptions import VLLMValidationError
from vllm.v1.attention.backends import utils as attention

from vllm_pruner import methods
from vllm_pruner.compat.versions import at_least
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.keys import PLAN_TEXT

(NAME,) = BLOCKS
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NAME in NEWER, reason="vLLM 0.31 has no pictures of this model"),
]

START, PAD, IMAGE, BREAK, END = range(129257, 129262)
PLACEHOLDER = "<｜deepseek_image｜>"
FLAGS: dict[str, Any] = {"dtype": "float32", "enforce_eager": True, "mm_encoder_only": True}
KINDS = ["image"] * 4

_NOISE = np.random.default_rng(0)
SIZES = [(196, 168), (100, 300), (1, 400), (336, 336), (500, 37), (1, 1)]
PICTURES = [Image.fromarray(_NOISE.integers(0, 256, (*size, 3), np.uint8)) for size in SIZES]
"""Of odd and even numbers of rows; the last one has four tokens."""


@pytest.fixture(scope="module")
def processor() -> Any:
    return pruning_processor(NAME)


@pytest.fixture(scope="module")
def unpruned() -> Any:
    """Stock vLLM's processor."""
    return stock_processor(NAME)


@pytest.fixture(scope="module", autouse=True)
def pictures() -> Iterator[None]:
    """Of an odd and an even number of rows, with edges and without."""
    sizes = [(210, 168), (168, 250), (37, 501), (113, 224)]
    with pytest.MonkeyPatch.context() as patched:
        of_noise = [_NOISE.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
        patched.setitem(ITEMS, "image", [Image.fromarray(each) for each in of_noise])
        yield


def _asked(processor: Any, words: int, pictures: list[Image.Image], **settings: Any) -> Any:
    """What the engine gets of pictures behind so many tokens of text."""
    ids = [300] * words
    for _ in pictures:
        ids += [processor.info.get_image_placeholder_token_id(), 301]
    own = {"hf_processor_mm_kwargs": {"vtprune": settings}} if settings else {}
    return processor(ids, processor.info.parse_mm_data({"image": pictures}), **own)


def test_at_rate_0_prompt_and_pixels_are_stock_vllms(processor: Any, unpruned: Any) -> None:
    for words in range(4):
        ours = _asked(processor, words, PICTURES, rate=0.0)
        theirs = _asked(unpruned, words, PICTURES)
        assert ours["prompt_token_ids"] == theirs["prompt_token_ids"]
        places = zip(*(each["mm_placeholders"]["image"] for each in (ours, theirs)), strict=True)
        for found, expected in places:
            assert (found.offset, found.length) == (expected.offset, expected.length)
            assert torch.equal(found.is_embed, expected.is_embed)
        found, expected = (batched(each["mm_kwargs"]["image"]) for each in (ours, theirs))
        assert set(expected) == {"patches", "vit_grid", "llm_grid", "perm", "types"} <= set(found)
        for name, values in expected.items():
            assert torch.equal(found[name], values)


@pytest.mark.parametrize("budget", [{"rate": 0.5}, {"tokens": 1}, {"tokens": 6}, {"rate": 0.3}])
def test_a_pruned_block_stands_where_a_whole_one_would(
    processor: Any, unpruned: Any, budget: dict[str, Any]
) -> None:
    """[START] is the last of a group of four, so that the image has its groups alone, and [END] the
    first of one; a block is never longer than unpruned, by which the decoder's rows of visible
    tokens are sized. What is between is a run of placeholders and padding."""
    most = processor.info.get_hf_config().vision_max_n_token
    for words in range(4):
        output = _asked(processor, words, PICTURES, **budget)
        whole = _asked(unpruned, words, PICTURES)["mm_placeholders"]["image"]
        ids, places = output["prompt_token_ids"], output["mm_placeholders"]["image"]
        for place, before, size in zip(places, whole, SIZES, strict=True):
            layout = processor.info.family.layout(processor.info, *size, {})
            kept = PruneConfig.parse(budget).keep_count(layout.tokens)
            assert kept < layout.tokens or budget == {"tokens": 6}
            block = ids[place.offset : place.offset + place.length]
            front = 3 - place.offset % 4
            assert block[: front + 1] == [*[PAD] * front, START] and block[-1] == END
            assert (place.offset + front) % 4 == 3 and (place.offset + place.length) % 4 == 1
            inside = block[front + 1 : -1]
            assert inside.count(IMAGE) == kept + layout.rows == place.get_num_embeds()
            assert torch.equal(place.is_embed, torch.tensor(block) == IMAGE)
            if kept < layout.tokens:
                padding = len(inside) - kept - layout.rows
                assert padding < 4 and inside[len(inside) - padding :] == [PAD] * padding
            assert len(inside) + 2 <= min(before.length - (3 - before.offset % 4), most)


def _spans(processor: Any, places: list[Any]) -> list[tuple[int, int]]:
    """First and last position of what the decoder sees as one, as vLLM's runner tells it: by its
    function in 0.33, in 0.32 by the lines of its runner V1."""
    if of_runner := getattr(attention, "compute_mm_prefix_ranges", None):
        features = [SimpleNamespace(modality="image", mm_position=place) for place in places]
        model: Any = import_module("vllm_pruner.families.deepseek_v4").PrunedDeepseekV4
        clamps = model.mm_prefix_clamp_sliding_window
        modulus = model.mm_prefix_span_leading_pad_modulus
        found: list[tuple[int, int]] = of_runner([features], 128, clamps, modulus)[0]
        return found
    modulus = processor.info.get_hf_config().mm_prefix_span_leading_pad_modulus
    return [
        (each.offset + modulus - 1 - each.offset % modulus, each.offset + each.length - 1)
        for each in places
    ]


def test_the_decoder_sees_a_block_from_its_start_to_its_end(processor: Any) -> None:
    for words in range(4):
        output = _asked(processor, words, PICTURES, rate=0.7)
        ids = output["prompt_token_ids"]
        spans = _spans(processor, output["mm_placeholders"]["image"])
        assert len(spans) == len(PICTURES)
        for first, last in spans:
            assert (ids[first], ids[last]) == (START, END)
            assert START not in ids[first + 1 : last + 1]


@pytest.mark.skipif(at_least((0, 33)), reason="mended in vLLM 0.33")
def test_runner_v2_of_0_32_sees_runs_of_placeholders(processor: Any) -> None:
    """Of a whole picture a pair of rows each, of a pruned one all that is left, unless that is
    more than the sliding window: `docs/families.md` says so."""
    for settings, lengths in (({"rate": 0.0}, [2 * 8] * 4), ({"tokens": 9}, [9 + 8])):
        output = _asked(processor, 0, [PICTURES[3]], **settings)
        (place,) = output["mm_placeholders"]["image"]
        of_runner = import_module("vllm.v1.worker.gpu.attn_utils").compute_mm_prefix_ranges
        features = {"one": [SimpleNamespace(modality="image", mm_position=place)]}
        for window, found in ((128, lengths), (min(lengths) - 1, [])):
            (ranges,) = of_runner(["one"], features, window).values()
            assert [last - first + 1 for first, last in ranges] == found


def _expected(
    whole: torch.Tensor, block: list[int], perm: list[int], chosen: list[int], line: torch.Tensor
) -> torch.Tensor:
    """The rows of a pruned image by stock vLLM's block of it: what is kept, and all its breaks.

    Args:
        whole: stock's rows, in the order of the block.
        block: stock's tokens of the image.
        perm: the place in the picture of each of these rows.
        chosen: the places that are kept.
        line: the row of a break.
    """
    rows, left = [], iter(zip(whole, perm, strict=True))
    for token in block:
        if token == BREAK:
            rows.append(line)
        elif token == IMAGE:
            row, place = next(left)
            rows += [row] if place in chosen else []
    return torch.stack(rows)


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Stock, Any, Side]]:
    """What stock vLLM makes of a message, the decoder's rows of its whole prompt, and our side."""
    with stock_model(NAME, **FLAGS) as (config, model):
        side = Side(config, model)
        output = side.prompt(KINDS)
        rows, _ = side.rows(output)
        made = Stock(output, rows, None)
        whole = _embedded(model, output, rows["image"])
    with pruned_model(NAME, {}, **FLAGS) as (config, model):
        ours = Side(config, model)
        model.on_selection = lambda _tokens, index, _layout: ours.chosen.extend(index.tolist())
        yield made, whole, ours


@torch.inference_mode()
def _embedded(model: Any, output: Any, rows: list[torch.Tensor]) -> torch.Tensor:
    """What vLLM's class feeds its decoder of a prompt, text as nothing: the decoder, which would
    look that up, is not there."""
    ids = torch.tensor(output["prompt_token_ids"])
    is_embed = torch.zeros(len(ids), dtype=torch.bool)
    for place in output["mm_placeholders"]["image"]:
        is_embed[place.offset : place.offset + place.length] = place.is_embed
    nothing = SimpleNamespace(embed_input_ids=lambda ids: torch.zeros(len(ids), 128))
    vars(model.language_model)["module"], decoder = nothing, vars(model.language_model)["module"]
    try:
        embedded: torch.Tensor = model.embed_input_ids(ids, rows, is_multimodal=is_embed)
    finally:
        vars(model.language_model)["module"] = decoder
    return embedded


def test_rate_0_is_stock_bit_for_bit(pair: tuple[Stock, Any, Side]) -> None:
    stock, _, ours = pair
    output = ours.prompt(KINDS, {"rate": 0.0})
    rows, _ = ours.rows(output)
    for found, expected in zip(rows["image"], stock.rows["image"], strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("settings", [{"rate": 0.5}, {"tokens": 5}, {"rate": 0.9}], ids=str)
def test_kept_rows_are_stocks_in_its_order_with_all_breaks(
    pair: tuple[Stock, Any, Side], settings: dict[str, Any]
) -> None:
    stock, _, ours = pair
    rows, chosen = ours.rows(ours.prompt(KINDS, settings))
    items, ids = stock.output["mm_kwargs"]["image"], stock.output["prompt_token_ids"]
    line = ours.model.image_newline
    for number, place in enumerate(stock.output["mm_placeholders"]["image"]):
        kept, perm = chosen["image"][number], items[number]["perm"].data.tolist()
        assert kept == sorted({*kept})
        assert len(kept) == PruneConfig.parse(settings).keep_count(len(perm))
        block = ids[place.offset : place.offset + place.length]
        expected = _expected(stock.rows["image"][number], block, perm, kept, line)
        torch.testing.assert_close(rows["image"][number], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("settings", [{"rate": 1e-12}, {"tokens": 176}], ids=str)
def test_what_keeps_all_is_the_block_of_stock(
    pair: tuple[Stock, Any, Side], settings: dict[str, Any]
) -> None:
    """With placeholders for its breaks, and padding where it is; rows up to rounding."""
    stock, whole, ours = pair
    output = ours.prompt(KINDS, settings)
    rows, _ = ours.rows(output)
    ids = [IMAGE if each == BREAK else each for each in stock.output["prompt_token_ids"]]
    assert output["prompt_token_ids"] == ids
    found = _embedded(ours.model, output, rows["image"])
    torch.testing.assert_close(found, whole, atol=1e-4, rtol=1e-4)
    assert found.any(dim=1).tolist() == [START <= each <= END for each in ids]


def test_a_picture_at_rate_0_beside_pruned_ones_has_all_of_its_block(
    pair: tuple[Stock, Any, Side],
) -> None:
    """As OpenAI's `detail` asks for it."""
    stock, _, ours = pair
    levels = ["original", "auto", "original", "low"]
    output = ours.prompt(KINDS, {"rate": 0.5, "detail": levels})
    rows, chosen = ours.rows(output)
    items, ids = stock.output["mm_kwargs"]["image"], stock.output["prompt_token_ids"]
    assert len(chosen["image"][3]) == 1
    for number in (0, 2):
        place = stock.output["mm_placeholders"]["image"][number]
        perm = items[number]["perm"].data.tolist()
        block = ids[place.offset : place.offset + place.length]
        line = ours.model.image_newline
        expected = _expected(stock.rows["image"][number], block, perm, perm, line)
        torch.testing.assert_close(rows["image"][number], expected, atol=1e-4, rtol=1e-4)


def test_methods_that_read_text_get_the_question_alone(processor: Any) -> None:
    output = processed(processor, {"method": "cdpruner", "tokens": 4}, "image", PICTURES[:2])
    tokenizer = processor.info.get_tokenizer()
    for item in output["mm_kwargs"]["image"]:
        assert tokenizer.decode(item[PLAN_TEXT].data.tolist()).strip() == "What?"
    sentinels = {*range(START, END + 1), processor.info.get_image_placeholder_token_id()}
    assert processor.info.marks == sentinels


def test_what_it_cannot_do_is_refused(processor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    family, hf_config = processor.info.family, processor.info.get_hf_config()
    refused = {n for n in methods.names() if not family.serves(hf_config, methods.get(n))}
    assert refused == {"pixels", "resize"}
    with pytest.raises(ConfigError, match="allowed: vision_max_n_token in config.json, or anoth"):
        family.check_method(hf_config, methods.get("resize"))
    items = processor.info.parse_mm_data({"image": PICTURES[:1]})
    with pytest.raises(VLLMValidationError, match="mm_processor_kwargs is .*max_pixels"):
        processor(PLACEHOLDER, items, hf_processor_mm_kwargs={"max_pixels": 9})
    from vllm.models import deepseek_v4
    from vllm.models.deepseek_v4 import vl_stub

    name = "DeepseekV4ForConditionalGeneration"
    monkeypatch.setattr(deepseek_v4, name, getattr(vl_stub, name))
    with pytest.raises(ConfigError) as raised:
        family.largest(processor.info)
    assert str(raised.value) == (
        "vLLM's model of DeepSeek-V4 with vision is vllm.models.deepseek_v4.vl_stub on this "
        "machine; allowed: a GPU of NVIDIA or AMD, for which vLLM has one"
    )
