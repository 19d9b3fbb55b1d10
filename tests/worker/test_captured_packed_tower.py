"""The towers of Qwen-VL, GLM-V and ERNIE-4.5-VL as vLLM's manager of CUDA graphs runs them; see
`test_tower_graphs`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from contract import PACKED
from pruned_model import pruned_model
from replayed_tower import CPU, attention_beside_padding, captured
from tower_kernels import run_tower_kernels_on_a_cpu
from vllm.model_executor.layers.attention import mm_encoder_attention
from vllm.model_executor.models.interfaces import supports_encoder_cudagraph

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.methods.base import Need
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.tower import FEATURES, EncoderImage
from vllm_pruner.worker import packing
from vllm_pruner.worker.captured_packed_tower import pad_ends
from vllm_pruner.worker.recorder import HostFree

pytestmark = pytest.mark.slow

run_tower_kernels_on_a_cpu()

BUDGETS = [16, 32, 64, 128, 192]


attention = pytest.fixture(scope="module", autouse=True)(attention_beside_padding)

CHECKPOINTS = ["demo-qwen2.5", "demo-qwen2", "demo-qwen3", "demo-qwen4", "demo-glm4v", *PACKED]
CHECKPOINTS.append("demo-ernie4.5")
"""Every tower; those with experts, and Qwen3.5, have one of these. Qwen4-Exp has Qwen3-VL's in a
class from elsewhere in vLLM."""

FEW = 3
"""Batches that are enough of all but the first, which sorts patches by window."""


@pytest.fixture(scope="module", params=CHECKPOINTS)
def made(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The model and vLLM's manager of it; all kinds of columns are captured."""
    compilation: dict[str, Any] = {"encoder_cudagraph_token_budgets": BUDGETS}
    if "glm" in request.param:  # vLLM's own graphs are beside ours; its videos take long
        compilation["encoder_cudagraph_max_frames_per_batch"] = BUDGETS[0]
    flags: dict[str, Any] = {"compilation_config": compilation, "trust_remote_code": True}
    flags["mm_encoder_only"] = request.param in PACKED
    settings = {"method": "visionzip", "importance": "merger_norm"}
    with pruned_model(request.param, settings, dtype="float32", **flags) as pair:
        config, model = pair
        yield model, captured(config, model)


def _image(model: Any, rows: int, columns: int, seed: int = 0) -> EncoderImage:
    """A picture of bytes, which the device normalises."""
    patch = model.tower.module.patch_embed
    frames = getattr(patch, "temporal_patch_size", 1)
    width = 3 * frames * patch.patch_size**2
    draw = torch.Generator().manual_seed(seed + rows * 100 + columns)
    patches = torch.randint(256, (4 * rows * columns, width), generator=draw, dtype=torch.uint8)
    return EncoderImage(patches, GridLayout(rows, columns))


BATCHES = [
    [(7, 3), (5, 5), (9, 2), (3, 11)],
    [(16, 16), (2, 3)],  # one is larger than every graph
    [(7, 3)],  # padding behind one image
    [(8, 8)],  # a graph and nothing else
    [(8, 4), (4, 8)],
    [(12, 16)],
    [(10, 6), (2, 2), (1, 1)],
]


@pytest.mark.parametrize(
    ("made", "shapes"),
    [
        (checkpoint, shapes)
        for checkpoint in CHECKPOINTS
        for shapes in BATCHES[: None if checkpoint == CHECKPOINTS[0] else FEW]
    ],
    indirect=["made"],
    ids=str,
)
def test_each_image_gets_its_own_rows(made: Any, shapes: list[tuple[int, int]]) -> None:
    model, manager = made
    graphs = model._graphs
    images = [_image(model, *shape) for shape in shapes]
    before = manager.graph_hits
    model._graphs.encode([_image(model, *reversed(shape), seed=1) for shape in shapes])
    rows = graphs.encode(images)
    fitting = sum(shape[0] * shape[1] <= BUDGETS[-1] for shape in shapes)
    assert manager.graph_hits == before + 2 * fitting
    needs = {Need.IMPORTANCE, Need.KEYS, Need.MERGER_NORM}
    assert set(rows) == {FEATURES, *needs} == {FEATURES, *graphs.needs}
    alone = [model.tower.encode([image], graphs.needs) for image in images]
    for name, found in rows.items():
        expected = torch.cat([each[name] for each in alone])
        torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


def test_the_model_has_vllms_interface_and_its_runner_calls_embed_multimodal(made: Any) -> None:
    model, manager = made
    assert supports_encoder_cudagraph(model)
    assert not manager.supports_modality("image")
    assert not manager.supports_modality("video")


def test_kept_rows_and_where_they_were_are_the_same_with_and_without_graphs(made: Any) -> None:
    model, manager = made
    image = _image(model, 8, 8)
    found = []
    for attached in (True, False):
        model._encoder.cache.clear()
        if not attached:
            model.graphs_cleared(manager)
        found += model.embed_multimodal(
            pixel_values=image.pixels,
            image_grid_thw=torch.tensor([[1, 16, 16]]),
            **{
                name: [values]
                for name, values in ImagePlan(PruneConfig(tokens=9), "picture").fields().items()
            },
        )
    model.graphs_captured(manager, 0.0, 0)
    assert torch.equal(*found)


def test_what_is_captured_beside_attention_never_meets_the_host(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention for CPUs and the reference of its scores do; a GPU runs kernels in their place."""
    model, manager = made

    def scores(query: torch.Tensor, *_: Any, patches_per_token: int, **__: Any) -> torch.Tensor:
        return query.new_zeros(len(query) // patches_per_token)

    monkeypatch.setattr(mm_encoder_attention, "vit_torch_sdpa_wrapper", lambda q, *_, **__: q * 1)
    monkeypatch.setattr(packing, "column_importance", scores)
    sizes = (BUDGETS[-1], manager.max_batch_size, manager.max_frames_per_batch)
    made_for = model.prepare_encoder_cudagraph_capture_inputs
    values = made_for(*sizes, CPU, torch.float32).values
    with HostFree(), torch.inference_mode():
        model.encoder_cudagraph_forward(values)


def test_a_graph_has_room_for_its_rows_whatever_their_number(made: Any) -> None:
    """Where the operator names sizes that its images do not share evenly."""
    model, _ = made
    values = model.tower.blank(30, 16, CPU, torch.float32)
    assert len(values["pixel_values"]) >= 30 * model.tower.patches_per_row


def test_a_video_runs_eagerly(made: Any) -> None:
    model, _ = made
    image, needs = _image(model, 8, 8), model._graphs.needs
    assert model._graphs.hold([image], needs)
    video = EncoderImage(image.pixels, GridLayout(4, 8, frames=2))
    assert not model._graphs.hold([video], needs)
    assert not model._graphs.hold([image], needs | {Need.RECEIVED_MIDWAY})


def test_padding_is_an_image_behind_the_others() -> None:
    buffer = torch.tensor([0, 9, 9, 9, 9, 64], dtype=torch.int32)
    pad_ends(buffer, torch.tensor([0, 12, 20], dtype=torch.int32))
    assert buffer.tolist() == [0, 12, 20, 20, 20, 64]
