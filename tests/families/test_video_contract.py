"""What a family that prunes videos promises of their prompts; no engine, vLLM's own processors."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import pytest
import torch
from contract import ENCODED, SERVED, batched, processed
from nightly import NIGHTLY
from pruning_processor import pruning_processor
from vllm.exceptions import VLLMValidationError

from vllm_pruner import methods
from vllm_pruner.layout.shares import frame_shares
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.keys import REPORT
from vllm_pruner.settings.server import ServerConfig

pytestmark = pytest.mark.slow

IMAGES_ALONE = ("demo-kimi-k3", "demo-skywork", "demo-qianfan")
CHECKPOINTS = [
    *("demo-glm4v", "demo-onevision", "demo-internvl", "demo-internvl-chat"),
    *("demo-qwen2", "demo-qwen2.5", "demo-qwen3", "demo-qwen3.5", "demo-ernie4.5"),
    *(each for each in ENCODED if each not in IMAGES_ALONE),
    *(pytest.param(each, marks=NIGHTLY) for each in SERVED if each not in IMAGES_ALONE),
]
CLIPS = [(2, 112, 112), (5, 200, 90), (8, 336, 336)]
"""Frames, height and width."""


@pytest.fixture(scope="module", params=CHECKPOINTS)
def processor(request: pytest.FixtureRequest) -> Any:
    return pruning_processor(request.param)


def _whole(processor: Any, clip: tuple[int, int, int]) -> tuple[int, int, int]:
    """A frame longer where the model joins two to one, and takes no odd number of them."""
    frames, height, width = clip
    joins = processor.info.family.name == "ernie4_5_vl"
    return frames + (frames % 2 if joins else 0), height, width


def _process(processor: Any, settings: dict[str, Any], *clips: tuple[int, int, int]) -> Any:
    noise = np.random.default_rng(0)
    videos = []
    for frames, height, width in clips:
        pixels = noise.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
        facts = {"fps": 2.0, "total_num_frames": frames, "duration": frames / 2}
        facts |= {"frames_indices": [*range(frames)], "do_sample_frames": False}
        videos.append((pixels, facts))
    return processed(processor, settings, "video", videos)


def _runs(processor: Any, output: Any, place: Any) -> list[int]:
    """How many video tokens are in each frame that has any, or in the video."""
    tokens = output["prompt_token_ids"][place.offset :][: place.length]
    info = processor.info  # frames may consist of image tokens
    token = info.image_token if info.family.video_marks else info.video_token
    return [len(list(alike)) for kind, alike in groupby(tokens) if kind == token]


@pytest.mark.parametrize("clip", CLIPS, ids=str)
def test_a_video_keeps_what_was_asked_of_all_its_frames(
    processor: Any, clip: tuple[int, int, int]
) -> None:
    clip = _whole(processor, clip)
    stock = _process(processor, {"rate": 0.0}, clip)
    (whole,) = stock["mm_placeholders"]["video"]
    for budget in ({"rate": 0.5}, {"rate": 0.999}, {"tokens": 1}, {"tokens": 7}, {"rate": 1e-12}):
        output = _process(processor, budget, clip)
        (place,), (item,) = output["mm_placeholders"]["video"], output["mm_kwargs"]["video"]
        layout = processor.info.video_layout(item.get_data())
        assert layout.tokens == whole.get_num_embeds()
        kept = PruneConfig.parse(budget).keep_count(layout.tokens)
        assert place.get_num_embeds() == kept
        assert whole.length - place.length == layout.tokens - kept, "all other tokens stay"
        shares = frame_shares(layout.frames, kept) if layout.apart else [kept]
        assert _runs(processor, output, place) == [share for share in shares if share]
        counts = {"original": layout.tokens, "kept": kept}
        own = processor.info.prune_config.method
        assert output[REPORT] == {**counts, "video": counts, "method": own}
        assert output["mm_hashes"]["video"] != stock["mm_hashes"]["video"]


def test_videos_of_a_family_that_does_not_prune_them_are_refused_until_they_may_stay_whole(
    processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a family from elsewhere, since all of ours do."""
    family = processor.info.family
    monkeypatch.setattr(type(processor.info), "family", replace(family, videos=None))
    said = f"the message has a video, but those of {family.name} cannot be pruned; allowed: video_r"
    with pytest.raises(VLLMValidationError, match=said):
        _process(processor, {"rate": 0.5}, CLIPS[0])
    whole = _process(processor, {"video_rate": 0.0}, CLIPS[0])[REPORT]["video"]
    assert whole["kept"] == whole["original"] > 0


def test_a_video_larger_than_the_limits_is_refused_with_its_size(
    processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole or pruned; what is cached was accepted."""
    for limits, said in [
        ({"max_video_pixels": 5 * 200 * 90 - 1}, "max_video_pixels 89999"),
        ({"max_pixels": 200 * 90 - 1}, "max_pixels 17999"),
        ({"max_side_ratio": 2.0}, "max_side_ratio 2"),
    ]:
        config = ServerConfig.parse({"limits": limits})
        monkeypatch.setattr(processor.info, "prune_config", config)
        for settings in ({"rate": 0.5}, {"rate": 0.0}):
            sentence = f"video is 5 frames of 90 x 200 pixels; allowed here: {said}"
            with pytest.raises(VLLMValidationError, match=sentence):
                _process(processor, settings, CLIPS[1])
        assert _process(processor, {"rate": 0.5}, CLIPS[0])


def test_a_batch_becomes_videos_with_the_layouts_of_their_items(processor: Any) -> None:
    info = processor.info
    clips = [_whole(processor, clip) for clip in CLIPS]
    made = [_process(processor, {"tokens": 4}, clip) for clip in clips]  # GLM takes one a prompt
    items = [each["mm_kwargs"]["video"][0] for each in made]
    batch = batched(items)
    (pixels,) = (name for name in batch if name.startswith("pixel_values"))
    if "video_num_patches" in batch:  # as vLLM's input calls them
        batch["num_patches"] = batch["video_num_patches"]
        batch["pixel_values"] = batch["pixel_values_flat"] = batch[pixels]
    videos = info.family.videos.items(info.get_hf_config(), batch)
    for item, video in zip(items, videos, strict=True):
        assert video.layout == info.video_layout(item.get_data())
        assert torch.equal(video.pixels, item[pixels].data)


@pytest.mark.parametrize("name", ["evs", "vidcom2"])
@pytest.mark.parametrize("clip", CLIPS, ids=str)
def test_a_method_that_compares_frames_has_one_run_for_all_of_them(
    processor: Any, clip: tuple[int, int, int], name: str
) -> None:
    """Also where other tokens stand between frames: these go along, the prompt is no longer. But
    not before a decoder that looks up n-grams of their ids."""
    info = processor.info
    if not info.family.serves(info.get_hf_config(), methods.get(name)):
        with pytest.raises(VLLMValidationError, match=f"video_method is '{name}', which has the "):
            _process(processor, {"video_method": name}, clip)
        assert info.family.name == "qwen4_exp"
        return
    clip = _whole(processor, clip)
    stock = _process(processor, {"rate": 0.0}, clip)
    (whole,) = stock["mm_placeholders"]["video"]
    for budget in ({"rate": 0.5}, {"tokens": 1}, {"tokens": 7}, {"rate": 1e-12}):
        settings: dict[str, Any] = {**budget, "video_method": name}
        output = _process(processor, settings, clip)
        (place,), (item,) = output["mm_placeholders"]["video"], output["mm_kwargs"]["video"]
        layout = processor.info.video_layout(item.get_data())
        kept = PruneConfig.parse(budget).keep_count(layout.tokens)
        between = ImagePlan.of_item(item.get_data()).between
        assert len(between) == (layout.frames - 1 if layout.apart else 0)
        rows = kept + sum(map(len, between))
        assert place.get_num_embeds() == rows and _runs(processor, output, place) == [rows]
        assert whole.length - place.length == layout.tokens - kept
        counts = {"original": layout.tokens, "kept": kept}
        assert output[REPORT] == {**counts, "video": counts, "method": name}
        # With all frames whole, and what goes along between them, it is stock's prompt.
        ids, mask = output["prompt_token_ids"], place.is_embed
        first = place.offset + (0 if mask is None else int(mask.int().argmax()))
        frame = ids[first : first + 1] * (layout.frame_tokens if layout.apart else layout.tokens)
        run = [*frame, *(token for text in between for token in [*text, *frame])]
        assert [*ids[:first], *run, *ids[first + rows :]] == stock["prompt_token_ids"]


def test_a_method_that_shrinks_images_is_refused_for_videos(processor: Any) -> None:
    with pytest.raises(VLLMValidationError, match="method is 'resize', which "):
        _process(processor, {"video_method": "resize"}, CLIPS[1])


def test_an_engine_without_a_language_model_joins_no_frames(
    processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not embed what is between them; the engine that decodes encodes such a video."""
    info, config = processor.info, PruneConfig.parse({"video_method": "evs"}).of_video()
    monkeypatch.setattr(info.ctx.model_config.get_multimodal_config(), "mm_encoder_only", True)
    found = info.video_fault(config)
    assert (found is not None) == info.family.videos.apart
    if found is not None:
        said = "video_method is 'evs', which has the text between frames embedded by the language"
        assert str(found).startswith(said) and "which encodes the video itself" in str(found)
    assert info.video_fault(PruneConfig.parse({"rate": 0.5})) is None
