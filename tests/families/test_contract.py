"""What every family promises, over all families and the checkpoints that we have of them.

`layout` counts the tokens that vLLM's processor counts; the prompt gets exactly the kept count of
placeholders at every size and rate; the processor's batch becomes images of these layouts. What the
model makes of them is tested in `tests/server`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pruning_processor import pruning_processor
from vllm.exceptions import VLLMValidationError
from vllm_process import MODELS
from vtprune_server.surface import ImageInfo

from vllm_pruner import methods
from vllm_pruner.families.registry import classes
from vllm_pruner.family import Family
from vllm_pruner.layout.crop_budget import choose
from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.layout.raster import is_mixed
from vllm_pruner.methods.base import VisualTokens
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.settings.config import DEFAULT_METHOD, PruneConfig
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.keys import BYTES, REPORT

CHECKPOINTS = [
    "demo",
    "demo-siglip",
    "demo-next",
    "demo-onevision",
    "demo-internvl-chat",
    "demo-internvl",
    "demo-idefics3",
    "demo-smolvlm",
    "demo-mistral3",
    "demo-gemma3",
    "demo-kimi",
    "demo-glm4v",
    "demo-glm4v-moe",
    "demo-qwen2",
    "demo-qwen2.5",
    "demo-qwen3",
    "demo-qwen3-moe",
    "demo-qwen3.5",
    "demo-qwen3.5-moe",
]
PROCESSORS = [(checkpoint, {}) for checkpoint in CHECKPOINTS]
PROCESSORS.append(("demo-gemma3", {"do_pan_and_scan": True}))
"""With arguments of the server's for HF's processor."""

SIZES = [
    *((336, 336), (672, 672), (1, 1), (480, 640), (640, 480), (37, 501), (501, 37), (1000, 1501)),
    *((100, 300), (300, 100), (224, 112), (113, 224), (1, 400), (400, 1), (9, 100), (333, 335)),
    (196, 168),
]
"""Heights and widths: square, wide, high, tiny, and so narrow that crops are all padding; last one
that has most tokens of `demo-onevision`, which resamples larger ones."""

BUDGETS: list[dict[str, Any]] = [
    *({"rate": rate} for rate in (0.1, 0.5, 8 / 9, 0.95, 0.999)),
    *({"tokens": tokens} for tokens in (1, 2, 7, 64)),
]
CPU = torch.device("cpu")


def architecture(checkpoint: str) -> str:
    config = json.loads((MODELS / checkpoint / "config.json").read_text())
    return str(config["architectures"][0])


def test_every_family_has_a_checkpoint() -> None:
    assert {architecture(checkpoint) for checkpoint in CHECKPOINTS} == set(classes())


@pytest.fixture(scope="module", params=PROCESSORS, ids=lambda each: "-".join([each[0], *each[1]]))
def processor(request: pytest.FixtureRequest) -> Iterator[Any]:
    """vLLM's own processor of a pruning model, made as the API server makes it."""
    checkpoint, more = request.param
    yield pruning_processor(checkpoint, **more)


@pytest.fixture(scope="module")
def model(processor: Any) -> tuple[Family, Any]:
    """The family and what it is asked with."""
    return processor.info.family, processor.info


@pytest.mark.parametrize("name", classes().values())
def test_all_that_vllm_is_given_has_the_same_family(name: str) -> None:
    module, _, attribute = name.partition(":")
    pruned: Any = getattr(import_module(module), attribute)
    assert isinstance(pruned.family, Family)
    assert pruned._processor_factory.info.family is pruned.family


def test_no_image_has_more_tokens_or_rows_than_the_largest(model: tuple[Family, Any]) -> None:
    family, info = model
    largest = family.largest(info)
    draw = random.Random(0)
    sizes = [*SIZES, *((draw.randint(1, 2000), draw.randint(1, 2000)) for _ in range(300))]
    layouts = [family.layout(info, *size, {}) for size in sizes if _is_served(family, size)]
    tokens = max(layout.tokens for layout in layouts)
    assert tokens <= largest.tokens
    assert tokens == largest.tokens or not isinstance(largest, CropLayout), "no size comes up to it"
    profiled = info.get_image_size_with_most_features()
    bound = family.layout(info, profiled.height, profiled.width, {}).encoded
    assert max(layout.encoded for layout in layouts) <= bound
    assert bound == largest.encoded or is_mixed(family.layout(info, *SIZES[1], {}))
    may_crop = family.name == "gemma3"  # if it is asked to
    assert family.one_layout == (set(layouts) == {largest} and not may_crop)


def _is_served(family: Family, size: tuple[int, int]) -> bool:
    """Qwen-VL's processors refuse pictures more than 200 times as long as wide."""
    return family.item_layout is None or max(size) <= 200 * min(size)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_position_is_a_newline_or_a_patch_from_its_own_place(
    model: tuple[Family, Any], size: tuple[int, int]
) -> None:
    family, info = model
    if not _is_served(family, size):
        pytest.skip("more than 200 times as long as wide")
    layout = family.layout(info, *size, {})
    patches, newline = layout.patches_at(torch.arange(layout.tokens))
    assert patches[~newline].tolist() == list(range(layout.patches))
    assert int(newline.sum()) == layout.tokens - layout.patches == layout.height
    if layout.whole_grid is not None:
        assert layout.whole_grid[0] * layout.whole_grid[1] == layout.tokens == layout.encoded
    views = layout.views()
    assert [(view.start, view.end) for view in views] == [
        *((view.start, after.start) for view, after in pairwise(views)),
        (views[-1].start, layout.patches),
    ]
    assert views[0].start == 0
    for view in views:
        rows, columns = view.rows[1] - view.rows[0], view.columns[1] - view.columns[0]
        across = view.tokens or (rows, columns)
        assert across[0] * across[1] == view.missing + view.end - view.start
    if isinstance(layout, CropLayout):
        _check_crops(layout)


def _check_crops(layout: CropLayout) -> None:
    sources = layout.sources(CPU)
    made = layout.base + layout.raster[0] * layout.raster[1]
    assert len(sources) == made == len(set(sources.tolist()))
    assert (made == layout.patches) == (layout.resampled is None)
    assert 0 <= int(sources.min()) <= int(sources.max()) < layout.encoded
    of_crops = torch.cat(layout.patches_of_crops(CPU))
    assert sorted(of_crops.tolist()) == list(range(layout.patches))


def test_a_cut_run_has_exactly_the_kept_placeholders(model: tuple[Family, Any]) -> None:
    family, info = model
    for size in filter(partial(_is_served, family), SIZES):
        tokens = family.layout(info, *size, {}).tokens
        for budget in BUDGETS:
            kept = PruneConfig.parse(budget).keep_count(tokens)
            assert family.cut([7] * tokens, [True] * tokens, kept) == [7] * kept
    with pytest.raises(ValueError, match=r"placeholders are \[7, 8, 7\]; allowed: one token"):
        family.cut([7, 8, 7], [True] * 3, 2)


def test_a_method_is_served_or_refused_with_its_name_and_what_is_allowed(
    model: tuple[Family, Any],
) -> None:
    family, info = model
    served = []
    for name in methods.names():
        try:
            family.check_method(info.get_hf_config(), methods.get(name))
            served.append(name)
        except ConfigError as error:
            assert str(error).startswith(f"method is {name!r}, which "), error
            assert "; allowed: " in str(error)
    assert {"attention", DEFAULT_METHOD, "uniform"} <= set(served)
    if family.largest(info).whole_grid is None:
        assert not {name for name in served if "grid" in methods.get(name).needs}


def _process(
    processor: Any, settings: dict[str, Any], *sizes: tuple[int, int], picture: Any = None
) -> Any:
    """What the engine would get of a message with noise of some sizes, or with one picture."""
    noise = np.random.default_rng(0)
    pixels = [noise.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    pictures = [Image.fromarray(each) for each in (pixels if picture is None else [picture])]
    items = processor.info.parse_mm_data({"image": pictures})
    content = [{"type": "image"}] * len(pictures) + [{"type": "text", "text": "What?"}]
    template: Any = processor.info.get_tokenizer().apply_chat_template
    message = {"role": "user", "content": content}
    prompt = template([message], add_generation_prompt=True, tokenize=False)
    return processor(prompt, items, hf_processor_mm_kwargs={"vtprune": settings})


@pytest.mark.server
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_vllm_counts_the_tokens_of_the_layout(processor: Any, size: tuple[int, int]) -> None:
    family = processor.info.family
    if not _is_served(family, size):
        pytest.skip("more than 200 times as long as wide")
    layout = family.layout(processor.info, *size, {})
    output = _process(processor, {"rate": 0.0}, size)
    (place,) = output["mm_placeholders"]["image"]
    assert place.is_embed is not None or place.length == place.get_num_embeds()
    assert place.get_num_embeds() == layout.tokens
    assert processor.info.image_tokens(_size(size)) == layout.tokens
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
    if hasattr(stock, "get_max_image_tokens"):
        return int(stock.get_max_image_tokens())
    dummy = processor.get_dummy_inputs(4096, {"image": 1}, {}).mm_data_items["image"]
    return int(processor.info.image_tokens(dummy.get_image_size(0)))


def _size(size: tuple[int, int]) -> Any:
    from vllm.multimodal.parse import ImageSize

    return ImageSize(height=size[0], width=size[1])


@pytest.mark.server
@pytest.mark.parametrize("size", SIZES[3:9], ids=str)
def test_a_prompt_has_the_kept_count_of_placeholders(processor: Any, size: tuple[int, int]) -> None:
    tokens = processor.info.image_tokens(_size(size))
    for budget in BUDGETS:
        config = PruneConfig.parse(budget)
        output = _process(processor, budget, size)
        (place,) = output["mm_placeholders"]["image"]
        assert place.is_embed is not None or place.length == place.get_num_embeds()
        separators = processor.info.separators(_size(size), {})
        assert place.get_num_embeds() == config.keep_count(tokens) + separators
        run = output["prompt_token_ids"][place.offset :][: place.length]
        assert run.count(processor.info.image_token) == place.get_num_embeds()
        assert output[REPORT]["original"] == tokens


def test_vllms_memory_profile_gets_its_largest_item(processor: Any) -> None:
    """At every start but an eager one on a CPU; its prompt has nothing but the item."""
    for modality in processor.info.allowed_mm_limits:
        made = processor.get_dummy_mm_inputs({modality: 1})
        assert made["mm_kwargs"][modality][0] is not None


@pytest.mark.server
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_an_image_that_is_no_file_is_held_against_the_limits_too(
    processor: Any, rate: float
) -> None:
    """As `LLM.generate` is given them."""
    with pytest.raises(VLLMValidationError, match="image is 501 x 1 pixels; .* max_side_ratio 500"):
        _process(processor, {"rate": rate}, (1, 501))


@pytest.mark.server
@pytest.mark.parametrize("size", SIZES[3:7], ids=str)
def test_each_run_of_placeholders_gets_the_rows_that_are_kept_of_it(
    processor: Any, size: tuple[int, int]
) -> None:
    """What stands between runs says what the next one shows, so no row may slip out of its run.
    What the model puts between rows itself is in one run with them."""
    separators = processor.info.separators(_size(size), {})
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
            rows = [len(kept) + separators, 0]
        assert _runs(processor, settings, size) == rows


def _runs(processor: Any, settings: dict[str, Any], size: tuple[int, int]) -> list[int]:
    """How many placeholders an image starts with, and how many follow each of its other tokens."""
    output = _process(processor, settings, size)
    (place,) = output["mm_placeholders"]["image"]
    is_embed = [True] * place.length if place.is_embed is None else place.is_embed.tolist()
    runs = [0]
    for embeds in is_embed:
        if embeds:
            runs[-1] += 1
        else:
            runs.append(0)
    return runs


@pytest.mark.server
def test_a_batch_becomes_images_with_the_layouts_of_their_sizes(processor: Any) -> None:
    """Of images that were preprocessed together, and so padded to as many crops."""
    family, hf_config = processor.info.family, processor.info.get_hf_config()
    sizes = [size for size in SIZES[:6] if _is_served(family, size)]
    items = _process(processor, {"tokens": 4}, *sizes)["mm_kwargs"]["image"]
    batch = {
        name: field.field.reduce_data([item[name] for item in items])
        for name, field in items[0].items()
    }
    if "image_num_patches" in batch:
        batch["num_patches"] = batch["image_num_patches"]  # as vLLM's input calls it
    if BYTES in batch:
        batch["pixel_values"] = batch.pop(BYTES).movedim(-1, -3)
    images = family.images(hf_config, batch)
    assert [image.layout for image in images] == [
        family.layout(processor.info, *size, {}) for size in sizes
    ]
    for item, image in zip(items, images, strict=True):
        (given,) = (
            field.data.movedim(-1, -3) if name == BYTES else field.data
            for name, field in item.items()
            if name == BYTES or name.startswith("pixel_values")
        )
        given = given.view(-1, *image.pixels.shape[1:])
        assert torch.equal(image.pixels, given[: len(image.pixels)])
        if isinstance(image.layout, CropLayout):
            assert len(image.pixels) == image.layout.crops <= len(given)
        else:
            assert len(image.pixels) == len(given)


@pytest.mark.server
@pytest.mark.parametrize("size", [(336, 336), (448, 280)], ids=str)
def test_what_a_person_sees_is_the_picture_that_was_sent(
    processor: Any, size: tuple[int, int]
) -> None:
    """The first crop is the whole picture, possibly cut to a square, in the processor's colours."""
    info = processor.info
    column = np.linspace(0, 255, size[1]).astype(np.uint8)
    picture = np.stack([np.tile(column, (size[0], 1))] * 3, axis=2)
    picture[: size[0] // 2, :, 0] = 0
    output = _process(processor, {"tokens": 4}, picture=picture)
    (item,) = output["mm_kwargs"]["image"]
    fields = {name: field.field.reduce_data([field]) for name, field in item.items()}
    crop = info.seen(fields)[0]
    if crop.is_floating_point():
        images = info.get_hf_processor().image_processor
        for color, mean, std in zip(crop, images.image_mean, images.image_std, strict=True):
            color.mul_(std).add_(mean)
    else:
        crop = crop / 255
    red, green, _ = crop
    height, width = red.shape
    assert float(red[: height // 2 - 2].abs().max()) < 0.02
    lower, upper = green[height // 2 + 2 :], green[: height // 2 - 2]
    assert torch.allclose(upper.mean(dim=0), lower.mean(dim=0), atol=0.02)
    assert bool((lower.mean(dim=0).diff() > -0.02).all()), "columns keep their order"
    assert float(lower[:, -1].mean() - lower[:, 0].mean()) > 0.5
