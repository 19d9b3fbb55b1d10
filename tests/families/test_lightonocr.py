"""LightOnOCR: rows and norms of its tower, which is run here in another order than vLLM runs it,
beside vLLM's own and transformers'; and sizes that vLLM counts otherwise than they are made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from contract import batched
from pruned_model import picture_batch, picture_items, pruned_model
from started import engine_arguments
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.registry import visual_tokens
from vllm_pruner.methods.base import Need
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.tower import FEATURES

pytestmark = pytest.mark.slow

CHECKPOINT = "demo-lightonocr"
SIZES = [(224, 336), (280, 196), (120, 420)]


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[Any, Any]]:
    with pruned_model(CHECKPOINT, {}, dtype="float32") as (config, model), torch.inference_mode():
        yield config, model


def _fields(config: Any) -> dict[str, Any]:
    batch = picture_batch(config, SIZES, (1,), {"rate": 0.5})
    ImagePlan.pop_all(batch)
    return batch


def test_rows_are_those_of_vllm(made: tuple[Any, Any]) -> None:
    """Of pictures of several sizes, through tower and projector."""
    config, model = made
    fields = _fields(config)
    found = model.tower.encode(model._images(fields), frozenset())[FEATURES]
    stock = model.embed_unpruned(**fields)
    assert len({len(rows) for rows in stock}) == len(SIZES)
    torch.testing.assert_close(model.tower.project(found), torch.cat(stock), rtol=1e-4, atol=1e-4)


def test_norms_are_those_of_what_leaves_vllms_tower(made: tuple[Any, Any]) -> None:
    """In raster order there, in rows of two patches to a token."""
    config, model = made
    fields = _fields(config)
    needs = frozenset({Need.MERGER_NORM})
    found = model.tower.encode(model._images(fields), needs)[Need.MERGER_NORM]
    expected = []
    for encoded, pixels in zip(
        model.vision_tower(fields["pixel_values"]), fields["pixel_values"], strict=True
    ):
        rows, columns = (side // 14 for side in pixels.shape[-2:])
        norms = encoded.norm(dim=1).view(rows // 2, 2, columns // 2, 2)
        expected.append(norms.sum(dim=(1, 3)).flatten())
    norms = torch.cat(expected)
    assert float(norms.max() / norms.min()) > 1.05, "tokens differ"
    torch.testing.assert_close(found, norms, rtol=1e-4, atol=1e-4)


def test_a_picture_has_no_breaks_between_its_rows(made: tuple[Any, Any]) -> None:
    """As in stock vLLM: its processor has a name for them, but only Mistral3's prompts have any."""
    config, model = made
    processor = MULTIMODAL_REGISTRY.create_processor(config.model_config)
    assert model.family.separators is None
    (item,) = picture_items(config, SIZES[:1], (1,), {"rate": 0.5})
    (image,) = model._images({"pixel_values": batched([item])["pixel_values"]})
    layout = model.family.layout(processor.info, *SIZES[0], {})
    assert image.layout == layout and layout.tokens == 8 * 12


@pytest.mark.parametrize(
    "arguments", [{"size": {"longest_edge": 224}}, {"images_kwargs": {"size": {"longest_edge": 9}}}]
)
def test_a_size_that_vllm_does_not_count_by_is_refused(arguments: dict[str, Any]) -> None:
    """At start: stock vLLM would make fewer rows than a prompt has places for."""
    made = engine_arguments(CHECKPOINT, {}).create_model_config()
    assert visual_tokens(made, PruneConfig()) == 256
    made.get_multimodal_config().mm_processor_kwargs |= arguments
    with pytest.raises(ConfigError, match=r"^longest_edge of size is \d+; allowed: 448, the image"):
        visual_tokens(made, PruneConfig())


def test_a_request_of_another_size_is_refused(made: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match="longest_edge of size is 224; allowed: 448"):
        picture_items(made[0], SIZES[:1], (1,), {"rate": 0.5}, size={"longest_edge": 224})
