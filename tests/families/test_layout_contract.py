"""What every family says of an image from its size alone, over all checkpoints that we have: where
its tokens stand, how many there are, which methods it serves. No prompt is made."""

from __future__ import annotations

import json
import random
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any

import pytest
import torch
from contract import (
    BLOCKS,
    BUDGETS,
    CHECKPOINTS,
    ENCODERS,
    LACKING,
    NARROWED,
    RELATIVES,
    SIZES,
    is_served,
    skip_unless_served,
)
from pruned_model import SERVED_AS
from vllm.transformers_utils.config import get_config
from vllm_process import MODELS

from vllm_pruner import methods
from vllm_pruner.families.registry import classes
from vllm_pruner.family import Family
from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.layout.layout import Layout
from vllm_pruner.layout.raster import is_mixed
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.defaults import DEFAULT_METHOD
from vllm_pruner.settings.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(processor: Any) -> tuple[Family, Any]:
    """The family and what it is asked with."""
    return processor.info.family, processor.info


def architecture(checkpoint: str) -> str:
    file = MODELS / checkpoint / "config.json"
    if not file.exists():  # Mistral's own form names none
        return str(get_config(str(MODELS / checkpoint), False).architectures[0])
    return str(json.loads(file.read_text())["architectures"][0])


def test_every_family_has_a_checkpoint() -> None:
    built = {
        architecture(checkpoint)
        for checkpoint in [*CHECKPOINTS, *ENCODERS, *BLOCKS, *NARROWED, *RELATIVES]
    }
    other_names = {"Qwen2_5OmniForConditionalGeneration": "Qwen2_5OmniModel"}
    built = {SERVED_AS.get(each, each) for each in built}
    nemotron = ("NemotronH_Omni_Reasoning_V3", "NemotronH_Super_Omni_Reasoning_V3")
    other_names |= dict.fromkeys(nemotron, "NemotronH_Nano_Omni_Reasoning_V3")
    assert built | set(other_names) == set(classes())
    assert all(classes()[name] == classes()[same] for name, same in other_names.items())


@pytest.mark.parametrize("name", [name for each, name in classes().items() if each not in LACKING])
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
    layouts = [family.layout(info, *size, {}) for size in sizes if is_served(family, size)]
    tokens = max(layout.tokens for layout in layouts)
    assert tokens <= largest.tokens
    assert tokens == largest.tokens or not isinstance(largest, CropLayout), "no size comes up to it"
    profiled = info.get_image_size_with_most_features()
    bound = family.layout(info, profiled.height, profiled.width, {}).encoded
    assert max(layout.encoded for layout in layouts) <= bound
    assert bound == largest.encoded or is_mixed(family.layout(info, *SIZES[1], {}))
    may_crop = family.name == "gemma3"  # if it is asked to
    assert family.one_layout == (set(layouts) == {largest} and not may_crop)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_position_is_a_newline_or_a_patch_from_its_own_place(
    model: tuple[Family, Any], size: tuple[int, int]
) -> None:
    family, info = model
    skip_unless_served(family, size)
    layout = family.layout(info, *size, {})
    patches, newline = layout.patches_at(torch.arange(layout.tokens))
    assert patches[~newline].tolist() == list(range(layout.patches))
    assert int(newline.sum()) == layout.tokens - layout.patches == layout.height
    if layout.whole_grid is not None:
        assert layout.whole_grid[0] * layout.whole_grid[1] == layout.tokens == layout.encoded
    _check_views(layout)
    if isinstance(layout, CropLayout):
        _check_crops(layout)


def _check_views(layout: Layout) -> None:
    """One behind the other, they are all patches."""
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
    for size in filter(partial(is_served, family), SIZES):
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
        # `pixels` ranks the two grids of DeepSeek-OCR as one list.
        of_several = {"pixels"} if family.name == "deepseek_ocr" else set()
        assert {name for name in served if "grid" in methods.get(name).needs} == of_several


def test_vllms_memory_profile_gets_its_largest_item(processor: Any) -> None:
    """At every start but an eager one on a CPU; its prompt has nothing but the item."""
    for modality in processor.info.allowed_mm_limits:
        made = processor.get_dummy_mm_inputs({modality: 1})
        assert made["mm_kwargs"][modality][0] is not None
