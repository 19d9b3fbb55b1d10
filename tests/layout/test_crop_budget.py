"""One budget for several crops: joint or in shares, and what it must never lose on the way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, PixtralVisionConfig, SiglipVisionConfig
from vllm_process import MODELS

import vllm_pruner
from vllm_pruner.families.llava_next import LLAVA_NEXT
from vllm_pruner.layout.crop_budget import choose
from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.layout.newlines import method_budget
from vllm_pruner.layout.raster import arrange
from vllm_pruner.layout.shares import shares
from vllm_pruner.methods.base import VisualTokens
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.defaults import DEFAULT_METHOD
from vllm_pruner.settings.errors import ConfigError

SIDE, WIDTH = 6, 24
LAYOUT = CropLayout(SIDE**2, SIDE, (2, 2), (2, 10), (0, 12))
"""A picture one and a half times as wide as high: four rows of padding."""


def _encoded(seed: int, images: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """What a tower could give: features, and importance that adds up to one in every crop."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(images * LAYOUT.crops, LAYOUT.base, WIDTH, generator=generator)
    importance = torch.rand(features.shape[:2], generator=generator).pow(4)
    return features, importance / importance.sum(dim=1, keepdim=True)


def _patches(positions: torch.Tensor) -> list[set[int]]:
    """The patches among the kept positions of each image."""
    patches, newline = LAYOUT.patches_at(positions)
    return [
        set(row[~is_newline].tolist()) for row, is_newline in zip(patches, newline, strict=True)
    ]


def _arranged(**values: torch.Tensor) -> dict[str, torch.Tensor]:
    """Arrange what a tower gives, crop by crop."""
    whole = {
        name: value.unflatten(0, (-1, LAYOUT.crops)).flatten(1, 2) for name, value in values.items()
    }
    return arrange(whole, LAYOUT)


@pytest.mark.parametrize("keep", [4, 6, 16, 40, 100])
def test_a_faint_token_that_the_question_asks_for_is_kept_where_it_stands(keep: int) -> None:
    """The matching token is the faintest of the last crop. The published code looks for the tokens
    of every crop among the first ones (`methods.md` 2.2, second defect)."""
    features, importance = _encoded(0)
    crop, token = 4, 0
    importance[crop, token] = 0.0
    arranged = VisualTokens(**_arranged(features=features, importance=importance))
    (patch,) = (
        (LAYOUT.sources(torch.device("cpu")) == crop * LAYOUT.base + token).nonzero().tolist()
    )
    generator = torch.Generator().manual_seed(1)
    projected = torch.randn(1, LAYOUT.patches, WIDTH, generator=generator)
    text = [torch.randn(5, WIDTH, generator=generator)]
    text[0][2] = projected[0, patch[0]] * 2
    asked = VisualTokens(arranged.features, arranged.importance, projected, text)
    adafv = PruneConfig.parse({"method": "adafv", "tokens": keep})
    (kept,) = _patches(choose(asked, adafv, LAYOUT).index)
    assert patch[0] in kept
    for method, tokens in (("attention", keep), ("vispruner", 4)):
        config = PruneConfig.parse({"method": method, "tokens": tokens})
        (kept,) = _patches(choose(arranged, config, LAYOUT).index)
        assert patch[0] not in kept, method


@pytest.mark.parametrize("crop_budget", ["joint", "per_crop"])
@pytest.mark.parametrize("method", ["vispruner", "scope", "attention", "uniform", "random"])
def test_padding_is_never_kept_however_bright(method: str, crop_budget: str) -> None:
    """Padding of infinite importance, at every budget; whether a newline is kept says its row."""
    features, importance = _encoded(2, images=2)
    padding = torch.ones(LAYOUT.crops * LAYOUT.base, dtype=torch.bool)
    padding[LAYOUT.sources(torch.device("cpu"))] = False
    importance.view(2, -1)[:, padding] = torch.inf
    tokens = VisualTokens(**_arranged(features=features, importance=importance))
    assert tokens.importance is not None
    assert bool(tokens.importance.isfinite().all())
    for keep in (1, 5, 24, 47, 100, LAYOUT.tokens - 1, LAYOUT.tokens):
        config = PruneConfig.parse({"method": method, "tokens": keep, "crop_budget": crop_budget})
        positions = choose(tokens, config, LAYOUT).index
        assert positions.shape == (2, keep)
        assert bool((positions[:, 1:] > positions[:, :-1]).all())
        assert int(positions.min()) >= 0
        assert int(positions.max()) < LAYOUT.tokens


def test_joint_ranks_the_tokens_of_all_crops_by_their_own_crops_scale() -> None:
    """Scaling the attention of a crop, as an encoder does that looks at other things, changes
    nothing; the best token of a crop is the best whatever stands in the others."""
    features, importance = _encoded(3)
    scaled = importance * torch.tensor([1.0, 100.0, 0.01, 7.0, 3.0]).unsqueeze(1)
    config = PruneConfig.parse({"method": "attention", "tokens": 40})
    first, second = (
        choose(
            VisualTokens(**_arranged(features=features, importance=scores)),
            config,
            LAYOUT,
        ).index
        for scores in (importance, scaled)
    )
    assert torch.equal(first, second)


def test_per_crop_is_the_method_in_every_crop() -> None:
    features, importance = _encoded(4)
    tokens = VisualTokens(**_arranged(features=features, importance=importance))
    keep = 80
    budget = method_budget(keep, LAYOUT)
    crops = LAYOUT.patches_of_crops(torch.device("cpu"))
    expected: set[int] = set()
    for number, crop in enumerate(crops):
        # In proportion to 36, 24, 24, 24 and 24 patches, from the first to the last.
        before = sum(len(each) for each in crops[:number])
        share = budget * (before + len(crop)) // 132 - budget * before // 132
        part = tokens.at(crop)
        kept = vllm_pruner.select(
            DEFAULT_METHOD, keep=share, features=part.features[0], importance=part.importance[0]
        )
        expected |= set(crop[kept].tolist())
    assert len(expected) == budget
    config = PruneConfig.parse({"tokens": keep, "crop_budget": "per_crop"})
    (kept_patches,) = _patches(choose(tokens, config, LAYOUT).index)
    assert expected <= kept_patches
    joint = PruneConfig.parse({"tokens": keep})
    assert _patches(choose(tokens, joint, LAYOUT).index) != [kept_patches]


def test_a_baseline_without_content_looks_at_none_when_it_fills_up() -> None:
    config = PruneConfig.parse({"method": "uniform", "tokens": 21})
    kept = []
    for seed in (6, 7):
        features, importance = _encoded(seed)
        arranged = _arranged(features=features, importance=importance)
        kept.append(choose(VisualTokens(**arranged), config, LAYOUT).index.tolist())
    assert kept[0] == kept[1]


def test_an_image_is_chosen_alike_alone_and_in_a_batch() -> None:
    features, importance = _encoded(5, images=3)
    for settings in ({}, {"crop_budget": "per_crop"}, {"method": "uniform"}):
        config = PruneConfig.parse({"tokens": 30, **settings})
        together = choose(
            VisualTokens(**_arranged(features=features, importance=importance)),
            config,
            LAYOUT,
        ).index
        for image in range(3):
            own = slice(image * LAYOUT.crops, (image + 1) * LAYOUT.crops)
            values = {"features": features[own], "importance": importance[own]}
            arranged = _arranged(**values)
            assert torch.equal(
                choose(VisualTokens(**arranged), config, LAYOUT).index[0], together[image]
            )


def test_shares_are_whole_and_add_up() -> None:
    assert shares([576] * 5, 320) == [64] * 5
    for sizes in ([36, 24, 0, 24, 24], [1, 1, 1], [7], [0, 0, 5]):
        for budget in range(sum(sizes) + 1):
            found = shares(sizes, budget)
            assert sum(found) == budget
            assert all(0 <= share <= size for share, size in zip(found, sizes, strict=True))
            assert all(
                abs(share - budget * size / sum(sizes)) < 1
                for share, size in zip(found, sizes, strict=True)
            )


def _config(**changes: Any) -> Any:
    config = AutoConfig.from_pretrained(MODELS / "demo-next")
    for name, value in changes.items():
        setattr(config, name, value)
    return config


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"mm_patch_merge_type": "flat"},
            "mm_patch_merge_type is 'flat'; allowed: 'spatial_unpad', as vLLM merges",
        ),
        (
            {"vision_feature_layer": [-2, -3]},
            "vision_feature_layer is [-2, -3]; allowed: one layer",
        ),
        (
            {"vision_config": PixtralVisionConfig()},
            "vision tower is pixtral; allowed: clip_vision_model, siglip_vision_model",
        ),
        (
            {"vision_config": SiglipVisionConfig(image_size=112, patch_size=14)},
            "a crop has 63 visual tokens under vision_feature_select_strategy 'default'; "
            "allowed: 64, a square",
        ),
    ],
    ids=["merge", "layers", "tower", "siglip-without-a-patch"],
)
def test_a_model_that_is_merged_otherwise_is_refused(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        LLAVA_NEXT.largest(SimpleNamespace(get_hf_config=lambda: _config(**changes)))
    assert str(raised.value) == sentence
