"""Every family that prunes videos on a GPU that is not there: the rows and kept tokens of a CPU, no
order that streams do not have, and no wait. Videos stand among pictures in a step's batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from clip_prompt import clip_prompt
from model_on_card import kept_of, model_on_card
from nightly import NIGHTLY
from pretend_tensor import host
from pruned_model import pruned_model

from vllm_pruner.tower import VIDEO_PIXELS

pytestmark = pytest.mark.slow

_MODELS = "vllm.model_executor.models"

STOCK = {
    "demo-qwen2.5": {f"{_MODELS}.qwen2_5_vl:Qwen2_5_VisionTransformer.prepare_encoder_metadata"},
}
"""Functions of vLLM's in which the host waits, by checkpoint."""

IN_TREE = {
    "demo-qwen2.5": {
        *STOCK["demo-qwen2.5"],
        f"{_MODELS}.qwen2_5_vl:Qwen2_5_VLForConditionalGeneration._postprocess_video_embeds_evs",
    },
    "demo-qwen3": {
        f"{_MODELS}.qwen3_vl:Qwen3VLForConditionalGeneration._postprocess_video_embeds_evs"
    },
}
"""The same where vLLM prunes videos itself."""

CHECKPOINTS = [
    *((name, False) for name in ("demo-glm4v", "demo-internvl", "demo-qwen2.5", "demo-qwen3")),
    *((name, True) for name in IN_TREE),
    *(
        pytest.param((name, False), marks=NIGHTLY)
        for name in ("demo-onevision", "demo-internvl-chat", "demo-qwen2", "demo-qwen3.5")
    ),
]
"""With whether vLLM prunes the videos itself."""

CLIP, LONG, PICTURE = (4, 112, 112), (6, 84, 140), (84, 112)
"""Two videos, of frames, height and width, and a picture."""

METHODS = ("evs", "vidcom2", "scope")
"""The two that compare frames, and one of images, which ranks each frame by itself."""


def _cases() -> dict[str, list[tuple[tuple[int, ...], dict[str, Any]]]]:
    """Size and settings of what stands in a batch, by its name."""
    alike = {
        name: [(size, {"video_method": name, "rate": 0.6}) for size in (CLIP, PICTURE, CLIP, LONG)]
        for name in METHODS
    }
    mixed = [(CLIP, {}), (PICTURE, {"rate": 0.0}), (CLIP, {"video_rate": 0.0}), (LONG, {})]
    off = [(size, {"rate": 0.0}) for size in (CLIP, PICTURE)]
    return {**alike, "evs again": alike["evs"], "mixed": mixed, "off": off}


def _in_tree() -> dict[str, list[tuple[tuple[int, ...], dict[str, Any]]]]:
    """The same where vLLM prunes videos itself."""
    return {"in tree": [(CLIP, {}), (PICTURE, {"rate": 0.0}), (LONG, {}), (PICTURE, {})]}


def _items(config: Any, batch: Any) -> list[Any]:
    """Those at one place have the same pixels in every batch, so that most are known."""
    items = []
    for place, (size, settings) in enumerate(batch):
        fields = clip_prompt(config, [size], (place,), settings)["mm_kwargs"]
        items += [item for kind in fields.values() for item in kind]
    return items


@pytest.fixture(
    scope="module",
    params=CHECKPOINTS,
    ids=lambda param: param[0] + param[1] * " in tree",
)
def made(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """A card with a model, and by batch its items and what a CPU makes of them."""
    checkpoint, in_tree = request.param
    settings, allowed = ({"rate": 0.5, "video_rate": 0.0}, IN_TREE) if in_tree else ({}, STOCK)
    flags: dict[str, Any] = {"dtype": "float32", "trust_remote_code": True}
    flags |= {"video_pruning_rate": 0.6} if in_tree else {}
    with pruned_model(checkpoint, settings, **flags) as (config, model):
        batches = {}
        for name, batch in (_in_tree() if in_tree else _cases()).items():
            items = _items(config, batch)
            batches[name] = items, kept_of(model, items, device=None)
        with model_on_card(config, model, allowed.get(checkpoint, ())) as card:
            model._warm_up._is_cold = False
            yield card, model, batches


def test_videos_and_pictures_are_those_of_a_cpu_and_nothing_waits(made: Any) -> None:
    card, model, batches = made
    for name, (items, expected) in batches.items():
        found = kept_of(model, items)
        assert not card.waits, name
        for one, other in zip(found, expected, strict=True):
            for ours, cpu in zip(one, other, strict=True):
                assert torch.equal(host(ours), cpu), name
    assert not card.unused


def test_the_order_of_the_v2_runner_changes_nothing(made: Any) -> None:
    """It has all pictures encoded before all videos."""
    card, model, batches = made
    items, (rows, _) = batches.get("mixed") or batches["in tree"]
    order = sorted(range(len(items)), key=lambda place: not VIDEO_PIXELS.isdisjoint(items[place]))
    found, _ = kept_of(model, [items[place] for place in order])
    assert not card.waits
    for place, ours in zip(order, found, strict=True):
        torch.testing.assert_close(host(ours), rows[place], rtol=1e-4, atol=1e-4)
