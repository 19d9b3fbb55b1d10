"""What every family promises of a prompt, over all checkpoints that we have: vLLM's own processor
counts the tokens of the family's layout, and leaves exactly the kept count of placeholders."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from contract import BUDGETS, SIZES, image_size, processed_images, skip_unless_served
from PIL import Image
from vllm.exceptions import VLLMValidationError
from vtprune_server.surface import ImageInfo

from vllm_pruner.layout.crop_budget import choose
from vllm_pruner.layout.raster import is_mixed
from vllm_pruner.methods.base import VisualTokens
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.keys import REPORT

pytestmark = pytest.mark.server


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_vllm_counts_the_tokens_of_the_layout(processor: Any, size: tuple[int, int]) -> None:
    family = processor.info.family
    skip_unless_served(family, size)
    layout = family.layout(processor.info, *size, {})
    output = processed_images(processor, {"rate": 0.0}, size)
    (place,) = output["mm_placeholders"]["image"]
    assert place.is_embed is not None or place.length == place.get_num_embeds()
    own = processor.info.separators(image_size(size), {}) if family.own_marks else 0
    assert place.get_num_embeds() == layout.tokens + own
    assert output[REPORT]["original"] == output[REPORT]["kept"] == layout.tokens
    assert processor.info.image_tokens(image_size(size)) == layout.tokens
    assert isinstance(processor.info, ImageInfo), "what the server's routes ask"
    most = processor.info.get_max_image_tokens()
    assert most >= layout.tokens
    assert most == _profiled(processor) or is_mixed(family.layout(processor.info, *SIZES[1], {}))
    (item,) = output["mm_kwargs"]["image"]
    if family.item_layout is not None:
        assert family.item_layout(processor.info.get_hf_config(), item.get_data()) == layout


def _profiled(processor: Any) -> int:
    """The tokens of the image that stock vLLM profiles memory with: named, or of its dummy."""
    stock: Any = super(PrunedInfo, processor.info)
    counts_tiles = getattr(stock, "is_dynamic_tiler", False)  # Nemotron's, where there are none
    counts_marks = processor.info.family.name.startswith("step")
    if hasattr(stock, "get_max_image_tokens") and not (counts_tiles or counts_marks):
        return int(stock.get_max_image_tokens())
    dummy = processor.get_dummy_inputs(4096, {"image": 1}, {}).mm_data_items["image"]
    return int(processor.info.image_tokens(dummy.get_image_size(0)))


@pytest.mark.parametrize("size", SIZES[3:9], ids=str)
def test_a_prompt_has_the_kept_count_of_placeholders(processor: Any, size: tuple[int, int]) -> None:
    tokens = processor.info.image_tokens(image_size(size))
    for budget in BUDGETS:
        config = PruneConfig.parse(budget)
        # Noise has nothing that is empty, so the floor of a model that reads would keep all.
        output = processed_images(processor, {"floor": "off", **budget}, size)
        (place,) = output["mm_placeholders"]["image"]
        assert place.is_embed is not None or place.length == place.get_num_embeds()
        separators = processor.info.separators(image_size(size), {})
        assert place.get_num_embeds() == config.keep_count(tokens) + separators
        run = output["prompt_token_ids"][place.offset :][: place.length]
        assert run.count(processor.info.image_token) == place.get_num_embeds()
        assert output[REPORT]["original"] == tokens


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_an_image_that_is_no_file_is_held_against_the_limits_too(
    processor: Any, rate: float
) -> None:
    """As `LLM.generate` is given them."""
    with pytest.raises(VLLMValidationError, match="image is 501 x 1 pixels; .* max_side_ratio 500"):
        processed_images(processor, {"rate": rate}, (1, 501))


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_an_image_without_a_place_in_the_prompt_is_refused(processor: Any, rate: float) -> None:
    """A chat template may leave out what a role sends, and a client may truncate its prompt."""
    items = processor.info.parse_mm_data({"image": [Image.new("RGB", (224, 224))]})
    settings = {"vtprune": {"rate": rate}}
    with pytest.raises(VLLMValidationError, match="the prompt has no place for an image or a vid"):
        processor("Hello.", items, hf_processor_mm_kwargs=settings)


@pytest.mark.parametrize("size", SIZES[3:7], ids=str)
def test_each_run_of_placeholders_gets_the_rows_that_are_kept_of_it(
    processor: Any, size: tuple[int, int]
) -> None:
    """What stands between runs says what the next one shows, so no row may slip out of its run.
    What the model puts between rows itself is in one run with them."""
    if processor.info.family.name == "deepseek_v4":
        pytest.skip("padding is around its run: test_deepseek")
    separators = processor.info.separators(image_size(size), {})
    layout = processor.info.family.layout(processor.info, *size, {})
    starts = torch.tensor(_runs(processor, {"rate": 0.0}, size)).cumsum(0)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, layout.patches, 8, generator=generator)
    seen = VisualTokens(features, torch.rand(1, layout.patches, generator=generator).pow(4))
    for budget in BUDGETS:
        settings = {"method": "attention", **budget}
        (kept,) = choose(seen, PruneConfig.parse(settings), layout).index
        rows = torch.bucketize(kept, starts, right=True).bincount(minlength=len(starts)).tolist()
        if separators:
            rows = [len(kept) + separators, *[0] * (len(starts) > 1)]
        assert _runs(processor, settings, size) == rows


def _runs(processor: Any, settings: dict[str, Any], size: tuple[int, int]) -> list[int]:
    """How many placeholders an image starts with, and how many follow each of its other tokens."""
    output = processed_images(processor, settings, size)
    (place,) = output["mm_placeholders"]["image"]
    is_embed = [True] * place.length if place.is_embed is None else place.is_embed.tolist()
    runs = [0]
    for embeds in is_embed:
        if embeds:
            runs[-1] += 1
        else:
            runs.append(0)
    return runs
