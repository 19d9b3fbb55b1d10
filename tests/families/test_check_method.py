"""A method that a model cannot serve is refused by name, at start and in a request alike."""

from __future__ import annotations

import pytest
from contract import PACKED
from vllm.transformers_utils.config import get_config
from vllm_process import MODELS

from vllm_pruner import methods
from vllm_pruner.families.registry import family_of
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import ConfigError

ONE_GRID = {"adafv-ref", "hiprune", "pixels", "pool", "prumerge+", "resize", "visionzip"}


def _refused(model: str, **changes: str) -> dict[str, str]:
    hf_config = get_config(str(MODELS / model), trust_remote_code=True)
    for name, value in changes.items():
        setattr(hf_config, name, value)
    family, found = family_of(hf_config), {}
    for name in methods.names():
        try:
            family.check_method(hf_config, methods.get(name))
        except ConfigError as error:
            found[name] = str(error)
    return found


@pytest.mark.parametrize("model", ["demo", "demo-siglip"])
def test_llava_serves_every_method(model: str) -> None:
    assert _refused(model) == {}


def test_a_grid_that_lacks_a_patch_is_none() -> None:
    refused = _refused("demo-siglip", vision_feature_select_strategy="default")
    assert set(refused) == {"hiprune", "pixels", "pool", "resize"}
    assert refused["pool"] == (
        "method is 'pool', which needs the tower's whole grid of patches, but "
        "vision_feature_select_strategy is 'default'; "
        "allowed: 'full' with this tower, or a method without a grid"
    )


@pytest.mark.parametrize("model", ["demo-next", "demo-onevision"])
def test_crops_with_newlines_take_methods_that_choose_tokens_one_by_one(model: str) -> None:
    refused = _refused(model)
    assert set(refused) == ONE_GRID
    assert refused["visionzip"].startswith(
        "method is 'visionzip', which works on an image of one grid, but an image of this model is "
        "several crops"
    )


@pytest.mark.parametrize(
    ("model", "smaller"),
    [
        *[("demo-qwen2.5", "max_pixels"), ("demo-qwen3", "max_pixels")],
        *[("demo-glm4v", "size"), ("demo-glm-ocr", "size"), ("demo-mistral3", "size")],
        *[("demo-keye", "max_pixels"), ("demo-keye1.5", "max_pixels")],
        *[("demo-paddleocr", "max_pixels"), ("demo-dots-ocr", "max_pixels")],
        *[("demo-ernie4.5", "image_max_pixels"), ("demo-gemma4", "max_soft_tokens")],
        *[("demo-kimi", "in_token_limit"), ("demo-lightonocr", "image_size")],
        *[("demo-pixtral", "max_image_size"), ("demo-kimi-k2.5", "in_patch_limit")],
        *[(each, "max_image_tokens") for each in PACKED],
        ("demo-minimax-m3", "max_pixels"),
    ],
)
def test_a_processor_that_resizes_leaves_no_shrinking_to_a_method(model: str, smaller: str) -> None:
    files = {"demo-pixtral": "tekken.json", "demo-kimi-k2.5": "preprocessor_config.json"}
    files["demo-lightonocr"] = "vision_config of config.json"
    where = files.get(model, "mm_processor_kwargs")
    assert _refused(model) == {
        "resize": "method is 'resize', which shrinks the image before the tower, but the processor "
        f"of this model does that; allowed: {smaller} in {where}, or another method"
    }


def test_tiles_take_methods_that_choose_tokens_one_by_one_and_letters_none_that_read_text() -> None:
    assert "adafv" not in _refused("demo-internvl")
    refused = _refused("demo-internvl-chat")
    assert (
        set(refused) - ONE_GRID
        == {n for n in methods.names() if methods.get(n).needs_text} - ONE_GRID
    )
    assert set(refused) >= ONE_GRID
    assert refused["adafv"].startswith(
        "method is 'adafv', which reads the text after an image, but prompts of this model have no "
        "token that stands for one; allowed: methods that read no text"
    )


def test_a_decoder_that_looks_up_ngrams_has_all_text_of_a_video_in_its_prompt() -> None:
    assert set(_refused("demo-qwen4")) == {"resize"}
    hf_config = get_config(str(MODELS / "demo-qwen4"), trust_remote_code=False)
    family, joining = family_of(hf_config), [methods.get(name) for name in ("evs", "vidcom2")]
    assert not any(family.serves(hf_config, method) for method in joining)
    with pytest.raises(ConfigError) as raised:
        family.check_method(hf_config, joining[0])
    assert str(raised.value) == (
        "method is 'evs', which has the times of a video's frames embedded among its tokens, but "
        "this model looks up n-grams of a prompt's text; allowed: a method for images"
    )
    hf_config.text_config.ple_layer_ids = []
    assert all(family.serves(hf_config, method) for method in joining)


def test_a_pixtral_without_a_merger_has_no_norm_at_it_either() -> None:
    """As the first one, whose tokens are patches."""
    hf_config = get_config(str(MODELS / "demo-pixtral"), trust_remote_code=False)
    family, config = family_of(hf_config), PruneConfig.parse({"importance": "merger_norm"})
    family.check(hf_config, config)
    del hf_config.vision_config.mm_projector_id
    with pytest.raises(ConfigError, match="^importance is 'merger_norm', but pixtral merges no"):
        family.check(hf_config, config)


EARLY = {"demo-qwen2", "demo-qwen2.5", "demo-qwen3", "demo-qwen3-moe", "demo-qwen3.5", "demo-glm4v"}
EARLY |= {"demo-glm-ocr", "demo-paddleocr", "demo-dots-ocr", "demo-lightonocr", "demo-ernie4.5"}
EARLY |= {"demo-keye", "demo-keye1.5"}


@pytest.mark.parametrize("model", sorted({*EARLY, "demo", "demo-gemma4", "demo-kimi"}))
def test_only_a_tower_that_takes_some_tokens_is_pruned_before(model: str) -> None:
    hf_config = get_config(str(MODELS / model), trust_remote_code=True)
    family, config = family_of(hf_config), PruneConfig.parse({"method": "pixels"})
    assert family.serves(hf_config, methods.get("pixels")) == (model in EARLY)
    if model in EARLY:
        family.check(hf_config, config)
        return
    with pytest.raises(ConfigError) as raised:
        family.check(hf_config, config)
    assert str(raised.value) == (
        "method is 'pixels', which prunes before the tower, but this model's tower encodes whole "
        "images; allowed: a method that prunes behind it"
    )


@pytest.mark.parametrize(
    "model", ["demo", "demo-next", "demo-onevision", "demo-qwen3", "demo-kimi"]
)
def test_a_tower_that_merges_nothing_has_no_norm_at_its_merger(model: str) -> None:
    hf_config = get_config(str(MODELS / model), trust_remote_code=True)
    family = family_of(hf_config)
    config = PruneConfig.parse({"importance": "merger_norm"})
    if family.merger:
        family.check(hf_config, config)
        return
    with pytest.raises(ConfigError) as raised:
        family.check(hf_config, config)
    assert str(raised.value) == (
        f"importance is 'merger_norm', but {family.name} merges no patches; allowed: attention"
    )
