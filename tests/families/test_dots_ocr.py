"""dots.ocr's tower, which prepares all that it needs while it runs: its rows, and what methods read
in it, beside vLLM's own `forward`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from pruned_model import picture_batch, pruned_model
from started import engine_arguments

from vllm_pruner import compat, plugin
from vllm_pruner.methods.base import Need
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.tower import FEATURES, EncoderImage
from vllm_pruner.worker.dots_tower import DotsTower

pytestmark = pytest.mark.slow

CHECKPOINT = "demo-dots-ocr"
SIZES = [(224, 336), (280, 196), (120, 420)]


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[Any, list[EncoderImage]]]:
    """The model, and pictures."""
    flags = {"dtype": "float32", "trust_remote_code": True}
    with pruned_model(CHECKPOINT, {}, **flags) as (config, model), torch.inference_mode():
        batch = picture_batch(config, SIZES, (1,), {"rate": 0.5})
        ImagePlan.pop_all(batch)
        yield model, model._images(batch)


def _by_vllm(tower: DotsTower, images: list[EncoderImage]) -> Any:
    pixels = torch.cat([image.pixels for image in images])
    return tower.module(pixels, [tower._grid(image) for image in images])


@pytest.mark.parametrize("post_norm", [True, False])
def test_what_is_run_here_is_what_vllm_runs(made: Any, post_norm: bool) -> None:
    """Also without the norm behind the layers, which a checkpoint may lack."""
    model, images = made
    own = model.vision_tower.post_trunk_norm
    with mock.patch.object(model.vision_tower, "post_trunk_norm", own if post_norm else None):
        found = model.tower.encode(images, frozenset())[FEATURES]
        assert torch.equal(found, _by_vllm(model.tower, images))


@pytest.mark.parametrize("post_norm", [True, False])
def test_norms_are_those_of_what_leaves_the_last_layer(made: Any, post_norm: bool) -> None:
    """Before a norm makes them alike."""
    model, images = made
    seen: list[torch.Tensor] = []
    last = model.vision_tower.blocks[-1]
    handle = last.register_forward_hook(lambda _m, _a, returned: seen.append(returned))
    own = model.vision_tower.post_trunk_norm
    with mock.patch.object(model.vision_tower, "post_trunk_norm", own if post_norm else None):
        _by_vllm(model.tower, images)
        handle.remove()
        found = DotsTower(model).encode(images, frozenset({Need.MERGER_NORM}))[Need.MERGER_NORM]
    norms = seen[0].norm(dim=1).unflatten(0, (-1, 4)).sum(dim=1)
    assert float(norms.max() / norms.min()) > 1.05, "tokens differ"
    torch.testing.assert_close(found, norms)


def test_vllm_has_no_graphs_of_it_so_they_are_switched_off_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compat, "on_cuda", lambda: True)
    monkeypatch.setattr(plugin.logger.parent, "propagate", True)
    flags = {"compilation_config": {"cudagraph_mm_encoder": True}, "trust_remote_code": True}
    arguments = engine_arguments(CHECKPOINT, {}, **flags)
    arguments.create_model_config()
    assert not arguments.compilation_config.cudagraph_mm_encoder
    assert "vtprune does not run this vision tower in CUDA graphs" in caplog.text


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"mm_encoder_tp_mode": "data", "tensor_parallel_size": 2}, "mm_encoder_tp_mode is 'data'"),
        (
            {"enable_lora": True, "enable_tower_connector_lora": True},
            "enable_tower_connector_lora is True",
        ),
    ],
)
def test_flags_that_vllm_takes_and_pruning_cannot_are_refused(
    flags: dict[str, Any], sentence: str
) -> None:
    """vLLM's class takes both."""
    with pytest.raises(ConfigError, match=sentence):
        engine_arguments(CHECKPOINT, {}, trust_remote_code=True, **flags).create_model_config()
