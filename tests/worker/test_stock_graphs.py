"""Images that nobody prunes get what stock vLLM gives them from its own CUDA graphs, bit for bit,
where the operator asks for graphs.

Stock vLLM is here too: its class without the plugin, its manager, and the same stand-in for a
graph; see `test_tower_graphs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from any_rows import multiply_any_rows
from contract import ENCODED
from nightly import NIGHTLY
from offline_pictures import offline_pictures
from PIL import Image
from pruned_model import pruned_model, stock_model
from replayed_tower import attention_beside_padding
from replayed_tower import captured as manager_of
from tower_kernels import run_tower_kernels_on_a_cpu
from vllm.model_executor.models.lfm2_vl import Lfm2VLForConditionalGeneration
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFeatureSpec
from vllm.v1.attention.backends.registry import AttentionBackendEnum

from vllm_pruner import plugin
from vllm_pruner.layout.positions import split
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig

pytestmark = pytest.mark.slow

multiply_any_rows()
run_tower_kernels_on_a_cpu()

attention = pytest.fixture(scope="module", autouse=True)(attention_beside_padding)

BUDGETS = {
    "demo-qwen2.5": [16, 32, 64],
    "demo-qwen3": [16, 32, 64],
    "demo-glm4v": [16, 32, 64],
    **{each: [16, 32, 64] for each in ENCODED},
    "demo-kimi": [16, 32, 64],
    "demo-kimi-k2.5": [16, 32, 64],
    "demo-internvl-chat": [36, 72, 108],
    "demo-idefics3": [16, 272],
    "demo-llama4": [16, 272],
    "demo-gemma3": [64, 128, 192],
    "demo-lfm2": [16, 64, 128],
    "demo-minicpmv2.6": [16, 64, 160],
}
"""Sizes of the graphs, by checkpoint."""

SIZES = [(112, 140), (224, 168), (84, 84), (280, 112)]
"""Height and width of the pictures of a batch: more than one graph holds."""

LARGE = (448, 448)
"""A picture that no graph of Qwen-VL holds."""


def _flags(checkpoint: str) -> dict[str, Any]:
    compilation: dict[str, Any] = {"encoder_cudagraph_token_budgets": BUDGETS[checkpoint]}
    if "glm" in checkpoint:  # whose unused frames end before they begin: none on a CPU
        compilation["encoder_cudagraph_max_frames_per_batch"] = BUDGETS[checkpoint][0]
    dtype = "bfloat16" if "demo-kimi" in checkpoint else "float32"  # its decoder has no other
    flags = {"mm_encoder_only": checkpoint in ENCODED, "compilation_config": compilation}
    return {"dtype": dtype, "trust_remote_code": True, **flags}


def captured(config: Any, model: Any) -> Any:
    """vLLM's manager. It has MiniMax-M3's graphs of some backends of attention alone, so here its
    tower goes by one of these; what it attends with is the CPU's. LFM2-VL's asks a weight for its
    size, which the CPU has packed away."""
    transformer = getattr(getattr(model, "vision_tower", None), "vision_model", None)
    if hasattr(transformer, "attn_backend"):
        transformer.attn_backend = AttentionBackendEnum.FLASH_ATTN
    if isinstance(model, Lfm2VLForConditionalGeneration):
        linear = transformer.embeddings.patch_embedding
        packed = linear.weight.new_empty(linear.output_size, linear.input_size)
        linear.weight = torch.nn.Parameter(packed, requires_grad=False)
    return manager_of(config, model)


def _processed(config: Any, size: tuple[int, int], **settings: Any) -> Any:
    """A prompt with a picture of noise, which its size determines."""
    processor = MULTIMODAL_REGISTRY.create_processor(config.model_config)
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}
    template: Any = processor.info.get_tokenizer().apply_chat_template
    prompt = template([message], add_generation_prompt=True, tokenize=False)
    pixels = np.random.default_rng(size).integers(0, 256, (*size, 3), np.uint8)
    data = offline_pictures(config.model_config.hf_config, [Image.fromarray(pixels)])
    items = processor.info.parse_mm_data(data)
    return processor(prompt, items, hf_processor_mm_kwargs=settings)


def _batch(config: Any, sizes: Sequence[tuple[int, int]], *plans: ImagePlan) -> dict[str, Any]:
    """The fields of such pictures, one a request, as a runner batches them; with plans, if any."""
    own = {"vtprune": {"rate": 0.0}} if "vtprune" in _kwargs(config) else {}
    made = [_processed(config, size, **own)["mm_kwargs"].values() for size in sizes]
    items = [item for ((item,),) in made]
    fields = {
        name: element.field.reduce_data([item[name] for item in items])
        for name, element in items[0].items()
    }
    planned = [plan.fields() for plan in plans]
    return fields | {name: [each[name] for each in planned] for name in (planned or [{}])[0]}


def _kwargs(config: Any) -> dict[str, Any]:
    return config.model_config.multimodal_config.mm_processor_kwargs or {}


def _embedded(made: Any, fields: dict[str, Any]) -> list[torch.Tensor]:
    """What the decoder gets of a batch, without the digits that say where tokens were."""
    with torch.inference_mode():
        rows = made.model.embed_multimodal(**fields)
    return [split(each)[0] if made.model.family.item_layout else each for each in rows]


def _numbers(manager: Any) -> tuple[Any, ...]:
    """All that decides what is captured and how a batch is packed."""
    sizes = (manager.max_batch_size, manager.max_frames_per_batch)
    graphs = {path: sorted(graphs) for path, graphs in manager.budget_graphs.items()}
    return manager.token_budgets, *sizes, manager.path_token_budgets, graphs


def _hits(manager: Any) -> tuple[int, int]:
    return manager.graph_hits, manager.graph_misses


def assert_same(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


RARELY = (
    *("demo-kimi-k2.5", "demo-kimi-k3", "demo-lfm2", "demo-llama4", "demo-minimax-m3"),
    "demo-minicpmv2.6",
)
CHECKPOINTS = [pytest.param(each, marks=NIGHTLY if each in RARELY else ()) for each in BUDGETS]


@pytest.fixture(scope="module", params=CHECKPOINTS)
def in_stock(request: pytest.FixtureRequest) -> Any:
    """What stock vLLM makes of the pictures, all at once and two of them, from graphs."""
    with stock_model(request.param, **_flags(request.param)) as (config, model):
        assert type(model).__module__.startswith(("vllm.model_executor.models.", "vllm.models."))
        manager = captured(config, model)
        before, batches = _numbers(manager), [[*SIZES, LARGE], SIZES[::2]]
        with torch.inference_mode():
            rows = [manager.execute(_batch(config, sizes)) for sizes in batches]
        return SimpleNamespace(
            checkpoint=request.param,
            all=rows[0],
            some=rows[1],
            numbers=before,
            hits=_hits(manager),
        )


@pytest.fixture(scope="module")
def at_rate_0(in_stock: Any) -> Iterator[Any]:
    """The same on a server whose own rate is 0."""
    with pruned_model(in_stock.checkpoint, {"rate": 0.0}, **_flags(in_stock.checkpoint)) as made:
        config, model = made
        yield SimpleNamespace(config=config, model=model, manager=captured(config, model))


def test_at_rate_0_vllms_own_manager_does_what_it_does_in_stock_vllm(
    in_stock: Any, at_rate_0: Any
) -> None:
    manager = at_rate_0.manager
    assert _numbers(manager) == in_stock.numbers
    assert not manager.supports_modality("image"), "a runner calls `embed_multimodal`"
    assert_same(_embedded(at_rate_0, _batch(at_rate_0.config, [*SIZES, LARGE])), in_stock.all)
    assert_same(_embedded(at_rate_0, _batch(at_rate_0.config, SIZES[::2])), in_stock.some)
    assert _hits(manager) == in_stock.hits
    assert in_stock.hits[0] > 2


def test_at_rate_0_an_image_whose_request_prunes_it_runs_eagerly(at_rate_0: Any) -> None:
    hits = _hits(at_rate_0.manager)
    plan = ImagePlan(PruneConfig(tokens=5), "pruned")
    (rows,) = _embedded(at_rate_0, _batch(at_rate_0.config, SIZES[:1], plan))
    assert len(rows) == 5
    assert _hits(at_rate_0.manager) == hits


def test_a_manager_that_is_cleared_is_not_replayed(at_rate_0: Any) -> None:
    manager = captured(at_rate_0.config, at_rate_0.model)
    manager.clear()
    assert len(_embedded(at_rate_0, _batch(at_rate_0.config, SIZES))) == len(SIZES)
    assert _hits(manager) == (0, 0)


@pytest.fixture(scope="module")
def pruning(in_stock: Any) -> Iterator[Any]:
    """The same on a server that prunes, whose runner has a manager of our graphs."""
    with pruned_model(in_stock.checkpoint, {}, **_flags(in_stock.checkpoint)) as (config, model):
        manager = captured(config, model)
        beside = model._stock_graphs._manager
        yield SimpleNamespace(config=config, model=model, manager=manager, beside=beside)


def test_on_a_pruning_server_unpruned_images_replay_vllms_own_graphs(
    in_stock: Any, pruning: Any
) -> None:
    assert _numbers(pruning.beside) == in_stock.numbers
    assert_same(_embedded(pruning, _batch(pruning.config, [*SIZES, LARGE])), in_stock.all)
    assert_same(_embedded(pruning, _batch(pruning.config, SIZES[::2])), in_stock.some)
    assert _hits(pruning.beside) == in_stock.hits


def test_of_a_batch_the_unpruned_images_are_stock_vllms_and_the_others_pruned_as_without(
    in_stock: Any, pruning: Any
) -> None:
    off, on = (PruneConfig(rate=0.0), PruneConfig(tokens=5))
    plans = [ImagePlan(config, str(place)) for place, config in enumerate([off, on, off, on])]
    before, cache = _hits(pruning.beside), pruning.model._encoder.cache
    cache.clear()
    rows = _embedded(pruning, _batch(pruning.config, SIZES, *plans))
    assert_same(rows[::2], in_stock.some)
    assert [len(each) for each in rows[1::2]] == [5, 5]
    assert sum(_hits(pruning.beside)) == sum(before) + 2, "only those"
    cache.clear()
    assert_same(rows[1::2], _embedded(pruning, _batch(pruning.config, SIZES[1::2], *plans[1::2])))
    assert_same(_embedded(pruning, _batch(pruning.config, SIZES[::2], *plans[::2])), in_stock.some)


def test_an_observer_sees_unpruned_images_of_a_batch_too(pruning: Any) -> None:
    seen: list[Any] = []
    plan = ImagePlan(PruneConfig(rate=0.0), "seen")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning.model, "on_selection", lambda *each: seen.append(each), raising=False)
        _embedded(pruning, _batch(pruning.config, SIZES[:1], plan))
    assert len(seen) == 1


def test_an_unpruned_image_stands_where_it_does_eagerly(in_stock: Any, pruning: Any) -> None:
    if pruning.model.family.item_layout is None:
        pytest.skip("positions have one dimension")
    output = _processed(pruning.config, SIZES[1], vtprune={"rate": 0.0})
    ((item,), (place,)) = output["mm_kwargs"]["image"], output["mm_placeholders"]["image"]
    tokens = output["prompt_token_ids"]
    features = [MultiModalFeatureSpec(item, "image", "picture", place)]
    positions, _ = pruning.model.get_mrope_input_positions(tokens, features)
    fields = _batch(pruning.config, SIZES[1:2], ImagePlan(PruneConfig(rate=0.0), "picture"))
    found = []
    for graphs in (pruning.beside, None):
        pruning.model._stock_graphs._manager = graphs
        rows = pruning.model.embed_multimodal(**fields)
        written = positions.clone()
        found.append(pruning.model.recompute_mrope_positions(tokens, rows, written, 0)[1])
    pruning.model._stock_graphs._manager = pruning.beside
    assert torch.equal(*found)
    assert torch.equal(found[0], positions)


def test_both_sets_of_graphs_go_with_the_runners_manager(pruning: Any) -> None:
    model = pruning.model
    manager = captured(pruning.config, model)
    beside = model._stock_graphs._manager
    assert beside.is_captured() and beside is not pruning.beside
    manager.clear()
    assert not beside.is_captured() and model._stock_graphs._manager is None
    model._stock_graphs._manager = pruning.beside


def _broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("no room")


@pytest.mark.parametrize("broken", ["pruned", "unpruned"])
def test_graphs_that_cannot_be_captured_leave_the_others(
    broken: str, pruning: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, own = pruning.model, pruning.model.family.captured
    if broken == "pruned" and not own:
        pytest.skip("there are none of ours")
    monkeypatch.setattr(plugin.logger.parent, "propagate", True)
    model.graphs_cleared(pruning.beside)
    of = model if broken == "pruned" or not own else model._stock_graphs
    monkeypatch.setattr(of, "encoder_cudagraph_forward", _broken, raising=False)
    manager = captured(pruning.config, model)
    said = f"for {broken} images the vision tower is served without CUDA graphs, because they could"
    assert f"{said} not be captured: no room" in caplog.text
    assert (model._stock_graphs._manager is None) == (broken == "unpruned")
    assert not own or model._graphs.ready == (broken == "unpruned")
    assert len(_embedded(pruning, _batch(pruning.config, SIZES))) == len(SIZES)
    manager.clear()
    monkeypatch.undo()
    model.graphs_captured(pruning.manager, 0.0, 0)
    model._stock_graphs._manager = pruning.beside
