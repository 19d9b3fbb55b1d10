"""ERNIE-4.5-VL by its class in vLLM, without an engine: what the decoder gets of pictures and
videos, where it stands and which experts it goes to, beside stock vLLM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from beside_stock import PICTURES, Side, Stock
from contract import batched
from pruned_model import pruned_model, stock_model
from started import engine_arguments
from vllm.exceptions import VLLMValidationError
from vllm.model_executor.layers.attention import MMEncoderAttention

from vllm_pruner import compat, plugin
from vllm_pruner.families.ernie4_5_vl import ERNIE4_5_VL
from vllm_pruner.layout.positions import split
from vllm_pruner.settings.errors import ConfigError

pytestmark = pytest.mark.slow

NAME = "demo-ernie4.5"
FLAGS: dict[str, Any] = {"dtype": "float32", "trust_remote_code": True, "enforce_eager": True}
MESSAGES = [("image", "image"), ("video",), ("image", "video", "image"), ("video", "image")]
"""Images and videos have one placeholder, so each stands before and behind the other."""

STARTS = ("<|IMAGE_START|>", "<|VIDEO_START|>")
MARKS = [*STARTS, "<|IMAGE_END|>", "<|VIDEO_END|>"]
SIGNS = ["<|image@placeholder|>", "<|video@placeholder|>"]
PLACEHOLDER = "<|IMAGE_PLACEHOLDER|>"


@dataclass
class Pair:
    """Stock vLLM's answers, and our model."""

    stock: dict[tuple[str, ...], Stock]
    experts: dict[tuple[str, ...], torch.Tensor]
    """Which tokens of a whole prompt stock vLLM sends to the experts of vision."""

    ours: Side


def _to_vision(model: Any, ids: list[int]) -> torch.Tensor:
    """Which of these tokens the decoder sends to the experts of vision, in a step with an image."""
    row = torch.zeros(1, model.config.hidden_size)
    model.embed_input_ids(
        torch.tensor(ids),
        multimodal_embeddings=[row],
        is_multimodal=torch.arange(len(ids)) == len(ids) - 1,
    )
    mask, model.visual_token_mask = model.visual_token_mask, None
    assert mask.shape == (len(ids), 1)
    return mask.flatten()


def _ids(side: Side, *names: str) -> list[int]:
    tokenizer: Any = side.processor.info.get_tokenizer()
    found: list[int] = tokenizer.convert_tokens_to_ids([*names])
    return found


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    stock, experts = {}, {}
    with stock_model(NAME, **FLAGS) as (config, model):
        assert type(model).__module__ == "vllm.model_executor.models.ernie45_vl"
        assert config.model_config.uses_mrope
        side = Side(config, model)
        for kinds in MESSAGES:
            output = side.prompt(kinds)
            stock[kinds] = Stock(output, side.rows(output)[0], side.positions(output))
            experts[kinds] = _to_vision(model, output["prompt_token_ids"])
    with pruned_model(NAME, {}, **FLAGS) as (config, model):
        ours = Side(config, model)
        model.on_selection = lambda _tokens, index, _layout: ours.chosen.extend(index.tolist())
        yield Pair(stock, experts, ours)


@pytest.mark.parametrize("kinds", MESSAGES, ids="-".join)
def test_rate_0_is_stock_bit_for_bit(pair: Pair, kinds: tuple[str, ...]) -> None:
    stock, output = pair.stock[kinds], pair.ours.prompt(kinds, {"rate": 0.0})
    assert output["prompt_token_ids"] == stock.output["prompt_token_ids"]
    rows, _ = pair.ours.rows(output)
    for kind, expected in stock.rows.items():
        for one, other in zip(rows[kind], expected, strict=True):
            assert torch.equal(split(one)[0], other)
    for step in (4096, 37):
        positions, delta = pair.ours.positions(output, rows, step)
        assert torch.equal(positions, stock.positions[0]) and delta == stock.positions[1]


SETTINGS: list[dict[str, Any]] = [
    *({"rate": 1e-12}, {"rate": 0.5}, {"tokens": 7}),
    *({"tokens": 9, "video_rate": 0.0}, {"rate": 0.0, "video_rate": 0.5}),
    {"rate": 0.5, "video_method": "evs"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("kinds", MESSAGES, ids="-".join)
def test_kept_rows_are_those_of_stock_where_they_would_stand(
    pair: Pair, kinds: tuple[str, ...], settings: dict[str, Any]
) -> None:
    """Exactly as many as asked for, ascending, with all other tokens of the prompt, for the same
    experts; a video beside stays whole where that was asked."""
    stock, output = pair.stock[kinds], pair.ours.prompt(kinds, settings)
    rows, chosen = pair.ours.rows(output)
    for kind, expected in stock.rows.items():
        rate = settings.get("video_rate" if kind == "video" else "rate", settings.get("rate"))
        if not chosen[kind]:
            chosen[kind] = [[*range(len(each))] for each in expected]
        for one, whole, index in zip(rows[kind], expected, chosen[kind], strict=True):
            of_all = {0.0: len(whole), 1e-12: len(whole), 0.5: round(len(whole) / 2)}
            assert len(index) == (settings["tokens"] if rate is None else of_all[rate])
            assert index == sorted({*index})
            torch.testing.assert_close(split(one)[0], whole[index])
    at = stock.at(output, chosen)
    whole, delta = stock.positions
    for step in (4096, 37, 7):
        positions, ours = pair.ours.positions(output, rows, step)
        assert torch.equal(positions, whole[:, at])
        assert ours + positions.shape[1] == delta + whole.shape[1]
    to_vision = _to_vision(pair.ours.model, output["prompt_token_ids"])
    assert torch.equal(to_vision, pair.experts[kinds][at])
    tokenizer: Any = pair.ours.processor.info.get_tokenizer()
    names = tokenizer.convert_ids_to_tokens(output["prompt_token_ids"])
    assert to_vision.tolist() == [name in (*MARKS, PLACEHOLDER) for name in names]


def test_a_prefix_hit_may_end_anywhere(pair: Pair) -> None:
    """The first step then feeds what is left of an item, or the next one."""
    kinds = ("image", "video", "image")
    stock, output = pair.stock[kinds], pair.ours.prompt(kinds, {"rate": 0.5})
    rows, chosen = pair.ours.rows(output)
    at = stock.at(output, chosen)
    for first in range(16, len(at), 16):
        positions, _ = pair.ours.positions(output, rows, first)
        assert torch.equal(positions, stock.positions[0][:, at])


def test_what_is_kept_before_the_tower_is_encoded_alone(pair: Pair) -> None:
    """All of it gives stock's rows; a part never saw the others, but stands where it stood."""
    kinds = ("image", "image")
    stock = pair.stock[kinds]
    for settings in ({"rate": 1e-12}, {"tokens": 40}):
        output = pair.ours.prompt(kinds, {"method": "pixels", "floor": "off", **settings})
        rows, chosen = pair.ours.rows(output)
        for one, whole, index in zip(
            rows["image"], stock.rows["image"], chosen["image"], strict=True
        ):
            close = torch.allclose(split(one)[0], whole[index], rtol=1e-4, atol=1e-4)
            assert close == (len(index) == len(whole))
        positions, _ = pair.ours.positions(output, rows, 37)
        assert torch.equal(positions, stock.positions[0][:, stock.at(output, chosen)])


@pytest.mark.parametrize("kind", ["image", "video"])
def test_importance_is_what_the_patches_of_all_frames_receive(pair: Pair, kind: str) -> None:
    """By the queries and keys that the tower's last layer is called with; a video's token is two
    frames of four patches, which attend within their frame."""
    model = pair.ours.model
    inner = [e for e in model.vision_model.modules() if isinstance(e, MMEncoderAttention)][-1]
    stock_forward, seen, told = inner.forward, [], []

    def look(*args: Any, **kwargs: Any) -> Any:
        seen.append((kwargs["query"][0], kwargs["key"][0]))
        return stock_forward(*args, **kwargs)

    output = pair.ours.prompt((kind,), {"rate": 0.5, "method": "attention"})
    before, model.on_selection = model.on_selection, lambda tokens, *_: told.append(tokens)
    model._encoder.forget()
    inner.forward = look
    try:
        with torch.inference_mode():
            model.embed_multimodal(**batched(output["mm_kwargs"][kind]))
    finally:
        del inner.forward
        model.on_selection = before
    frames = {"image": 1, "video": 6}[kind]
    query, key = (each.unflatten(0, (frames, -1)).transpose(1, 2) for each in seen[0])
    weights = (query @ key.transpose(2, 3) * inner.scale).softmax(dim=-1)
    received = weights.mean(dim=(1, 2)).unflatten(1, (-1, 4)).sum(dim=2)
    if kind == "video":
        received = received.unflatten(0, (3, 2)).sum(dim=1)
    torch.testing.assert_close(told[0].importance[0], received.flatten(), rtol=1e-3, atol=1e-7)
    images = model._images({**batched(output["mm_kwargs"][kind])})
    assert images[0].layout.encoded == len(received.flatten()) * (2 if kind == "video" else 1)
    assert told[0].features.shape[2] == 4 * 128 * (2 if kind == "video" else 1)


def test_only_kept_tokens_go_through_the_resampler(pair: Pair) -> None:
    model, rows = pair.ours.model, []
    handle = model.resampler_model.temporal_linear1.register_forward_pre_hook(
        lambda _, args: rows.append(len(args[0]))
    )
    try:
        for kind in ("image", "video"):
            pair.ours.rows(pair.ours.prompt((kind,), {"tokens": 7}))
    finally:
        handle.remove()
    assert rows == [7, 7]


def test_vllms_graphs_end_at_a_picture_that_fits_none_of_them(pair: Pair) -> None:
    """It is resampled, and what comes of it again, as what graphs return has to be."""
    stock: Any = pair.ours.model._stock_graphs  # what vLLM's own class answers its manager
    output = pair.ours.prompt(("image",), {"rate": 0.0})
    fields = batched(output["mm_kwargs"]["image"])
    with torch.inference_mode():
        rows = {"default": stock.encoder_eager_forward(fields)}
        with pytest.raises(IndexError):
            stock.postprocess_encoder_output(rows, [0], [96], {}, batch_mm_kwargs=fields)


def test_so_there_are_none_without_ours(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compat, "on_cuda", lambda: True)
    monkeypatch.setattr(plugin.logger.parent, "propagate", True)
    flags = {"compilation_config": {"cudagraph_mm_encoder": True}, "trust_remote_code": True}
    arguments = engine_arguments(NAME, {"tower_graphs": False}, **flags)
    arguments.create_model_config()
    assert not arguments.compilation_config.cudagraph_mm_encoder
    assert "switched off, because tower_graphs is false" in caplog.text


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"use_temporal_conv": False}, "^the resampler joins 1 frames to one; allowed: 2$"),
        ({"temporal_conv_size": 4}, "^the resampler joins 4 frames to one; allowed: 2$"),
        ({}, "^processor is SimpleNamespace, which has no image_min_pixels; allowed: the check"),
    ],
    ids=str,
)
def test_what_is_not_as_published_is_refused_at_start(
    changed: dict[str, Any], sentence: str
) -> None:
    config = SimpleNamespace(use_temporal_conv=True, temporal_conv_size=2)
    vars(config).update(changed)
    info = SimpleNamespace(get_hf_config=lambda: config, get_hf_processor=SimpleNamespace)
    with pytest.raises(ConfigError, match=sentence):
        ERNIE4_5_VL.largest(info)


def test_tokens_of_and_around_items_are_no_question(pair: Pair) -> None:
    info = pair.ours.processor.info
    assert info.marks == {*_ids(pair.ours, *MARKS, *SIGNS, PLACEHOLDER)}
    named = [info.image_token, info.video_token, info.image_sign, info.video_sign]
    assert named == _ids(pair.ours, PLACEHOLDER, PLACEHOLDER, *SIGNS)


@pytest.mark.parametrize("frames", [1, 3])
def test_a_video_of_an_odd_number_of_frames_is_refused(pair: Pair, frames: int) -> None:
    """vLLM's resampler cannot join them, and takes one frame for an image."""
    processor = pair.ours.processor
    facts = {"fps": 2.0, "total_num_frames": frames, "duration": frames / 2}
    facts |= {"do_sample_frames": False, "frames_indices": [*range(frames)]}
    clip = (np.zeros((frames, 56, 56, 3), np.uint8), facts)
    items = processor.info.parse_mm_data({"video": [clip]})
    with pytest.raises(VLLMValidationError, match=f"^a video has {frames} frames, which this mod"):
        processor("<|VIDEO_START|><|video@placeholder|><|VIDEO_END|>\n", items)


def test_vllms_engine_would_end_at_it(pair: Pair) -> None:
    with torch.inference_mode(), pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        pair.ours.model.resampler_model(torch.zeros(3 * 16, 128), torch.tensor([[3, 4, 4]]))


def test_in_a_step_that_feeds_no_rows_vllm_tells_no_marks(pair: Pair) -> None:
    """Why `visual_experts` of the tests of answers has it look in every step."""
    model, (mark,) = pair.ours.model, _ids(pair.ours, "<|IMAGE_END|>")
    one = torch.tensor([mark])
    model.embed_input_ids(one, multimodal_embeddings=[], is_multimodal=torch.tensor([False]))
    assert model.visual_token_mask is None
    assert _to_vision(model, [mark]).all()


def test_a_spelled_placeholder_is_refused_beside_what_is_pruned(pair: Pair) -> None:
    """The model would take it for a token of the image; at rate 0 nothing is looked for."""
    processor = pair.ours.processor
    info = processor.info
    prompt = f"{PLACEHOLDER} <|IMAGE_START|><|image@placeholder|><|IMAGE_END|> what?"
    items = info.parse_mm_data({"image": [PICTURES[0]]})
    with pytest.raises(VLLMValidationError, match=r"prompt has a <\|IMAGE_PLACEHOLDER\|> that is"):
        processor(prompt, items, hf_processor_mm_kwargs={"vtprune": {"rate": 0.5}})
    assert processor(prompt, items, hf_processor_mm_kwargs={"vtprune": {"rate": 0.0}})


def test_a_request_bounds_its_pictures_where_the_processor_looks(pair: Pair) -> None:
    for most, tokens in ((None, 96), (50 * 28**2, 40)):
        kwargs = {} if most is None else {"image_max_pixels": most}
        output = pair.ours.prompt(("image",), {"rate": 0.5}, **kwargs)
        assert output["mm_placeholders"]["image"][0].length == tokens // 2
    with pytest.raises(ConfigError, match="image_max_pixels are"):  # vLLM answers 400 to it
        pair.ours.prompt(("image",), {"rate": 0.5}, image_max_pixels="many")
