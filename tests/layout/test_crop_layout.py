"""Where tokens stand in an image of several crops, against vLLM's own merging of numbers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig
from vllm.model_executor.models.llava_next import (
    LlavaNextForConditionalGeneration,
    LlavaNextProcessingInfo,
)
from vllm.model_executor.models.llava_onevision import LlavaOnevisionForConditionalGeneration
from vllm_process import MODELS

from vllm_pruner.families.llava_next import LLAVA_NEXT
from vllm_pruner.families.llava_onevision import LLAVA_ONEVISION
from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.layout.raster import arrange

NEWLINE = -1
SIZES = [
    *((336, 336), (672, 672), (1, 1), (480, 640), (640, 480), (37, 501), (501, 37), (2000, 3001)),
    *((100, 300), (300, 100), (224, 112), (113, 224), (1, 400), (400, 1), (9, 100), (333, 335)),
]


@pytest.fixture(scope="module")
def config() -> Any:
    return AutoConfig.from_pretrained(MODELS / "demo-next")


def _info(config: Any) -> Any:
    """What a family asks of vLLM's processing info."""
    return SimpleNamespace(get_hf_config=lambda: config)


def _merged(config: Any, layout: CropLayout, size: tuple[int, int]) -> torch.Tensor:
    """What vLLM makes of tokens that are their own number, crop after crop."""
    stand_in: Any = SimpleNamespace(config=config, image_newline=torch.tensor([float(NEWLINE)]))
    numbers = torch.arange(layout.crops * layout.base, dtype=torch.float32)
    return LlavaNextForConditionalGeneration._merge_image_patch_embeddings(
        stand_in,
        torch.tensor(size),
        numbers.view(layout.crops, layout.base, 1),
        strategy="spatial_unpad",
    ).squeeze(1)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_all_positions_are_what_vllm_merges(config: Any, size: tuple[int, int]) -> None:
    layout = LLAVA_NEXT.layout(_info(config), *size, {})
    expected = _merged(config, layout, size)
    patches, newline = layout.patches_at(torch.arange(layout.tokens))
    found = layout.sources(torch.device("cpu"))[patches].masked_fill(newline, NEWLINE)
    assert found.tolist() == expected.tolist()
    assert int(newline.sum()) == layout.height


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_count_is_that_of_vllms_placeholders(config: Any, size: tuple[int, int]) -> None:
    context: Any = SimpleNamespace(get_hf_config=lambda _: config)
    info = LlavaNextProcessingInfo(context)
    count = info.get_num_image_tokens(image_height=size[0], image_width=size[1])
    assert LLAVA_NEXT.layout(_info(config), *size, {}).tokens == count
    assert count <= LLAVA_NEXT.largest(_info(config)).tokens == info.get_max_image_tokens() == 336


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_patches_of_crops_are_those_whose_source_is_in_the_crop(
    config: Any, size: tuple[int, int]
) -> None:
    layout = LLAVA_NEXT.layout(_info(config), *size, {})
    crop = layout.sources(torch.device("cpu")) // layout.base
    expected = [(crop == number).nonzero().flatten().tolist() for number in range(layout.crops)]
    found = layout.patches_of_crops(torch.device("cpu"))
    assert [patches.tolist() for patches in found] == expected


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_importance_has_the_same_mean_in_every_crop_and_padding_has_no_say(
    config: Any, size: tuple[int, int]
) -> None:
    layout = LLAVA_NEXT.layout(_info(config), *size, {})
    generator = torch.Generator().manual_seed(0)
    raw = torch.rand(2 * layout.crops, layout.base, generator=generator)
    raw *= torch.logspace(-3, 0, 2 * layout.crops).unsqueeze(1)
    sources = layout.sources(torch.device("cpu"))
    padding = torch.ones(layout.crops * layout.base, dtype=torch.bool)
    padding[sources] = False
    raw = raw.view(2, -1).masked_fill(padding, 1e6).view(raw.shape)
    numbers = torch.arange(raw.numel(), dtype=torch.float32).view(*raw.shape, 1)
    whole = {"features": numbers.view(2, -1, 1), "scores": raw.view(2, -1)}
    features, importance = arrange(whole, layout).values()
    for image in range(2):
        begin = image * layout.crops * layout.base
        assert features[image, :, 0].tolist() == (sources + begin).tolist()
        for patches in layout.patches_of_crops(torch.device("cpu")):
            if len(patches):
                torch.testing.assert_close(importance[image, patches].mean(), torch.tensor(1.0))
                old = raw.flatten()[begin + sources[patches]]
                assert torch.equal(old.argsort(), importance[image, patches].argsort())


def test_an_image_of_one_crop_is_left_as_it_is() -> None:
    layout, features, scores = CropLayout(7), torch.rand(3, 7, 2), torch.rand(3, 7)
    arranged = arrange({"features": features, "scores": scores}, layout)
    assert arranged["features"] is features
    assert arranged["scores"] is scores
    patches, newline = layout.patches_at(torch.arange(7))
    assert patches.tolist() == list(range(7))
    assert not newline.any()


@pytest.fixture(scope="module")
def onevision() -> Any:
    return AutoConfig.from_pretrained(MODELS / "demo-onevision")


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_large_raster_is_resampled_as_vllm_does(onevision: Any, size: tuple[int, int]) -> None:
    layout = LLAVA_ONEVISION.layout(_info(onevision), *size, {})
    assert (layout.resampled is not None) == (layout.raster[0] * layout.raster[1] > 1.21 * 9 * 16)
    made = torch.randn(layout.crops, layout.base, 5, generator=torch.Generator().manual_seed(0))
    stand_in: Any = SimpleNamespace(config=onevision)
    expected = LlavaOnevisionForConditionalGeneration._merge_image_patch_embeddings(
        stand_in,
        torch.tensor(size),
        made,
        image_newline=torch.full((5,), float(NEWLINE)),
        strategy="spatial_unpad",
    )
    rows = arrange({"features": made.view(1, -1, 5)}, layout)["features"][0]
    patches, newline = layout.patches_at(torch.arange(layout.tokens))
    found = rows[patches].masked_fill(newline.unsqueeze(1), NEWLINE)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("size", [(672, 672), (1000, 1501), (196, 168)], ids=str)
def test_a_mixture_belongs_to_the_crop_that_most_of_it_is_of(
    onevision: Any, size: tuple[int, int]
) -> None:
    layout = LLAVA_ONEVISION.layout(_info(onevision), *size, {})
    made = torch.eye(layout.crops).repeat_interleave(layout.base, dim=0).unsqueeze(0)
    shares = arrange({"features": made}, layout)["features"][0]
    for crop, patches in enumerate(layout.patches_of_crops(torch.device("cpu"))):
        assert torch.allclose(shares[patches, crop], shares[patches].amax(dim=1), atol=1e-6)
