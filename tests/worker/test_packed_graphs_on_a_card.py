"""Towers that pack images of any size, captured as vLLM's V2 runner captures them, on a GPU that is
not there: each graph gives other pictures what the tower gives them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from clip_prompt import clip_prompt
from model_on_card import embedded, model_on_card
from pretend_gpu import Card
from pretend_tensor import CARD, host
from pruned_model import picture_items, pruned_model
from replayed_tower import attention_beside_padding
from vllm.model_executor.layers.attention import mm_encoder_attention
from vllm.v1.worker.encoder_cudagraph import EncoderCudaGraphManager

pytestmark = pytest.mark.slow

attention = pytest.fixture(scope="module", autouse=True)(attention_beside_padding)

BUDGETS = [16, 32, 64, 288]
"""Tokens of the graphs; Qwen2.5-VL's smallest video of two times needs the last."""

SIZES = [(112, 140), (224, 168), (84, 84)]
"""Height and width of pictures; together more than any graph but the last holds."""

VIDEOS: list[dict[str, Any]] = [{"video_rate": 0.0}, {"video_method": "evs"}, {"rate": 0.0}]
"""Settings of messages with a picture and a video."""

WHOLE = 3
"""How many pictures and videos of these nobody prunes. vLLM has both in its graphs."""

WAITS = {
    "vllm.model_executor.models.qwen2_5_vl:Qwen2_5_VisionTransformer.prepare_encoder_metadata",
}


@pytest.fixture
def one_kernel(monkeypatch: pytest.MonkeyPatch, attention: None) -> Iterator[Any]:
    """A function that makes attention one operator of a card, as it is there."""
    stock = mm_encoder_attention.vit_torch_sdpa_wrapper

    def use(card: Card) -> None:
        run = card.runs(stock)
        monkeypatch.setattr(
            mm_encoder_attention,
            "vit_torch_sdpa_wrapper",
            lambda q, k, v, scale=None, cu_seqlens=None, enable_gqa=False: run(
                q, k, v, scale, cu_seqlens, enable_gqa
            ),
        )

    yield use


def _among_pictures(config: Any, number: int, settings: dict[str, Any]) -> list[Any]:
    """A picture and a video of one message, in the order of the V2 runner."""
    fields = clip_prompt(config, [(4, 84, 84), (84, 84)], (number,), settings)["mm_kwargs"]
    return [*fields["image"], *fields["video"]]


@pytest.mark.parametrize("checkpoint", ["demo-qwen2.5", "demo-qwen3", "demo-glm4v"])
def test_a_graph_gives_other_pictures_their_rows(checkpoint: str, one_kernel: Any) -> None:
    compilation = {
        "encoder_cudagraph_token_budgets": BUDGETS,
        "encoder_cudagraph_max_frames_per_batch": BUDGETS[0],
    }
    flags: dict[str, Any] = {"dtype": "float32", "compilation_config": compilation}
    with pruned_model(checkpoint, {"feature_cache_mb": 0}, **flags) as (config, model):
        batches = [picture_items(config, SIZES, (seed,), {}) for seed in range(2)]
        batches.append(picture_items(config, SIZES, (2,), {"rate": 0.0}))
        expected = [embedded(model, items, device=None) for items in batches]
        clips = [_among_pictures(config, number, it) for number, it in enumerate(VIDEOS)]
        of_clips = [embedded(model, items, device=None) for items in clips]
        with model_on_card(config, model) as card:
            one_kernel(card)
            model._warm_up._is_cold = False
            manager = EncoderCudaGraphManager(config, CARD, torch.float32, model)
            with torch.inference_mode():
                manager.capture(graph_pool=object())
            assert manager.is_captured() and model._graphs.ready
            beside = model._stock_graphs._manager
            assert beside is not None and beside.is_captured()
            card.waits.clear()
            for items, rows in zip(batches, expected, strict=True):
                found = embedded(model, items)
                for one, other in zip(found, rows, strict=True):
                    torch.testing.assert_close(host(one), other, rtol=2e-5, atol=2e-5)
            assert manager.graph_hits == 2 * len(SIZES) and beside.graph_hits == len(SIZES)
            for items, rows in zip(clips, of_clips, strict=True):
                found = embedded(model, items)
                for one, other in zip(found, rows, strict=True):
                    torch.testing.assert_close(host(one), other, rtol=2e-5, atol=2e-5)
            assert beside.graph_hits == len(SIZES) + WHOLE
            assert not {each.rpartition(" in ")[2] for each in card.waits} - WAITS
