"""What every family promises, over all families and the checkpoints that we have of them.

`layout` counts the tokens that vLLM's processor counts; the prompt gets exactly the kept count of
placeholders at every size and rate; the processor's batch becomes images of these layouts. What the
model makes of them is tested in `tests/server`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm_process import MODELS

from vllm_pruner import methods
from vllm_pruner.families.registry import classes, family_of
from vllm_pruner.family import Family
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import ConfigError

CHECKPOINTS = ["demo", "demo-siglip", "demo-next"]
SIZES = [
    *((336, 336), (672, 672), (1, 1), (480, 640), (640, 480), (37, 501), (501, 37), (1000, 1501)),
    *((100, 300), (300, 100), (224, 112), (113, 224), (1, 400), (400, 1), (9, 100), (333, 335)),
]
"""Heights and widths: square, wide, high, tiny, and so narrow that crops are all padding."""

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


@pytest.fixture(scope="module", params=CHECKPOINTS)
def model(request: pytest.FixtureRequest) -> tuple[Family, Any]:
    hf_config = AutoConfig.from_pretrained(MODELS / request.param)
    return family_of(hf_config), hf_config


@pytest.mark.parametrize("name", classes().values())
def test_all_that_vllm_is_given_has_the_same_family(name: str) -> None:
    module, _, attribute = name.partition(":")
    pruned: Any = getattr(import_module(module), attribute)
    assert isinstance(pruned.family, Family)
    assert pruned._processor_factory.info.family is pruned.family


def test_no_image_has_more_tokens_or_crops_than_the_largest(model: tuple[Family, Any]) -> None:
    family, hf_config = model
    largest = family.largest(hf_config)
    draw = random.Random(0)
    sizes = [*SIZES, *((draw.randint(1, 2000), draw.randint(1, 2000)) for _ in range(300))]
    layouts = [family.layout(hf_config, *size) for size in sizes]
    assert max(layout.tokens for layout in layouts) == largest.tokens
    assert max(layout.crops for layout in layouts) <= largest.crops
    assert {layout.base for layout in layouts} == {largest.base}
    assert family.one_layout == (set(layouts) == {largest})


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_position_is_a_newline_or_a_patch_from_its_own_place(
    model: tuple[Family, Any], size: tuple[int, int]
) -> None:
    family, hf_config = model
    layout = family.layout(hf_config, *size)
    sources = layout.sources(CPU)
    assert len(sources) == layout.patches == len(set(sources.tolist()))
    assert 0 <= int(sources.min()) <= int(sources.max()) < layout.crops * layout.base
    patches, newline = layout.patches_at(torch.arange(layout.tokens))
    assert patches[~newline].tolist() == list(range(layout.patches))
    assert int(newline.sum()) == layout.tokens - layout.patches
    of_crops = torch.cat(layout.patches_of_crops(CPU))
    assert sorted(of_crops.tolist()) == list(range(layout.patches))
    if layout.whole_grid is not None:
        assert layout.whole_grid[0] * layout.whole_grid[1] == layout.tokens


def test_a_cut_run_has_exactly_the_kept_placeholders(model: tuple[Family, Any]) -> None:
    family, hf_config = model
    for size in SIZES:
        tokens = family.layout(hf_config, *size).tokens
        for budget in BUDGETS:
            kept = PruneConfig.parse(budget).keep_count(tokens)
            assert family.cut([7] * tokens, kept) == [7] * kept
    with pytest.raises(ValueError, match=r"placeholders are \[7, 8, 7\]; allowed: one token"):
        family.cut([7, 8, 7], 2)


def test_a_method_is_served_or_refused_with_its_name_and_what_is_allowed(
    model: tuple[Family, Any],
) -> None:
    family, hf_config = model
    served = []
    for name in methods.names():
        try:
            family.check_method(hf_config, methods.get(name))
            served.append(name)
        except ConfigError as error:
            assert str(error).startswith(f"method is {name!r}, which "), error
            assert "; allowed: " in str(error)
    assert {"attention", "vispruner", "uniform"} <= set(served)
    if family.largest(hf_config).whole_grid is None:
        assert not {name for name in served if "grid" in methods.get(name).needs}


@pytest.fixture(scope="module", params=CHECKPOINTS)
def processor(request: pytest.FixtureRequest) -> Iterator[Any]:
    """vLLM's own processor of a pruning model, made as the API server makes it."""
    from vllm_pruner import plugin

    plugin.register()
    arguments = EngineArgs(
        model=str(MODELS / request.param),
        mm_processor_kwargs={"vtprune": {"rate": 0.5}},
        max_model_len=4096,
        enforce_eager=True,
    )
    yield MULTIMODAL_REGISTRY.create_processor(arguments.create_model_config())


def _process(processor: Any, settings: dict[str, Any], *sizes: tuple[int, int]) -> Any:
    noise = np.random.default_rng(0)
    pictures = [
        Image.fromarray(noise.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes
    ]
    items = processor.info.parse_mm_data({"image": pictures})
    prompt = "<image>\n" * len(sizes) + "What?"
    return processor(prompt, items, hf_processor_mm_kwargs={"vtprune": settings})


@pytest.mark.server
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_vllm_counts_the_tokens_of_the_layout(processor: Any, size: tuple[int, int]) -> None:
    layout = processor.info.family.layout(processor.info.get_hf_config(), *size)
    output = _process(processor, {"rate": 0.0}, size)
    (place,) = output["mm_placeholders"]["image"]
    assert place.length == place.get_num_embeds() == layout.tokens
    assert processor.info.image_tokens(_size(size)) == layout.tokens
    stock: Any = super(type(processor.info).__mro__[1], processor.info)
    assert stock.get_max_image_tokens() == processor.info.get_max_image_tokens() >= layout.tokens


def _size(size: tuple[int, int]) -> Any:
    from vllm.multimodal.parse import ImageSize

    return ImageSize(height=size[0], width=size[1])


@pytest.mark.server
@pytest.mark.parametrize("size", SIZES[3:9], ids=str)
def test_a_prompt_has_the_kept_count_of_placeholders(processor: Any, size: tuple[int, int]) -> None:
    tokens = processor.info.image_tokens(_size(size))
    for budget in BUDGETS:
        config = PruneConfig.parse({"method": "vispruner", **budget})
        output = _process(processor, {"method": "vispruner", **budget}, size)
        (place,) = output["mm_placeholders"]["image"]
        assert place.length == place.get_num_embeds() == config.keep_count(tokens)
        run = output["prompt_token_ids"][place.offset :][: place.length]
        assert set(run) == {processor.info.get_hf_config().image_token_index}
        assert output["vtprune"]["original"] == tokens


@pytest.mark.server
def test_a_batch_becomes_images_with_the_layouts_of_their_sizes(processor: Any) -> None:
    """Of images that were preprocessed together, and so padded to as many crops."""
    family, hf_config = processor.info.family, processor.info.get_hf_config()
    items = _process(processor, {"tokens": 7}, *SIZES[:6])["mm_kwargs"]["image"]
    rows = [item.get_data() for item in items]
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    images = family.images(hf_config, batch)
    assert [image.layout for image in images] == [
        family.layout(hf_config, *size) for size in SIZES[:6]
    ]
    crops = [len(image.pixels) for image in images]
    assert crops == [image.layout.crops for image in images]
    given = [
        row["pixel_values"].view(-1, *image.pixels.shape[1:])
        for row, image in zip(rows, images, strict=True)
    ]
    assert family.one_layout == (max(map(len, given)) == min(crops)), "nothing was padded"
    for image, pixels in zip(images, given, strict=True):
        assert torch.equal(image.pixels, pixels[: image.layout.crops])
