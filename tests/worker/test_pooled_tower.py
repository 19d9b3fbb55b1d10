"""Gemma 4's tower in two halves against vLLM's own forward: what is projected, and where attention
goes, of pictures that are padded to each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pruned_model import picture_batch, pruned_model
from transformers.models.gemma4.modeling_gemma4 import apply_multidimensional_rope

from vllm_pruner import compat
from vllm_pruner.methods.base import Need
from vllm_pruner.tower import FEATURES, Columns, EncoderImage
from vllm_pruner.worker.pooled_tower import PooledTower

pytestmark = pytest.mark.slow

SIZES = [(168, 224), (84, 280), (1, 400)]
"""Height and width of three pictures, of 63, 60 and 70 tokens."""

NEEDS = frozenset({Need.IMPORTANCE, Need.MERGER_NORM, Need.KEYS})


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[Any, dict[str, Any]]]:
    """The model, and the fields of the pictures."""
    with pruned_model("demo-gemma4", {"rate": 0.0}, dtype="float32") as (config, model):
        yield model, picture_batch(config, SIZES, (0,), {})


def _images(made: Any) -> list[EncoderImage]:
    model, fields = made
    return list(model.family.images(model.config, model._parse_and_validate_image_input(**fields)))


def _encoded(tower: PooledTower, images: list[EncoderImage]) -> Columns:
    return tower.encode(images, NEEDS)


@torch.no_grad()
def test_both_halves_are_what_vllm_makes_of_the_pictures(made: Any) -> None:
    model, fields = made
    tower = PooledTower(model)
    features = _encoded(tower, _images(made))[FEATURES]
    expected = torch.cat(model.embed_unpruned(**fields))
    assert torch.allclose(tower.project(features), expected, atol=1e-4)
    width, dtype = tower.columns(frozenset())[FEATURES]
    assert features.shape == (63 + 60 + 70, width) and features.dtype == dtype


@torch.no_grad()
def test_a_token_has_the_attention_norm_and_key_of_its_own_square_of_patches(made: Any) -> None:
    """Of the last layer, over the picture that it is in; each picture by itself has no padding."""
    model, _ = made
    layer = model.vision_tower.encoder.layers[-1]
    seen: dict[str, Any] = {}
    hooks = [
        layer.register_forward_hook(lambda _, args, output: seen.update(last=output)),
        layer.self_attn.q_norm.register_forward_hook(lambda _, a, out: seen.update(query=out)),
        layer.self_attn.k_norm.register_forward_hook(lambda _, a, out: seen.update(key=out)),
        layer.self_attn.register_forward_hook(
            lambda _, args, kwargs, output: seen.update(kwargs), with_kwargs=True
        ),
    ]
    tower, images = PooledTower(model), _images(made)
    found, start = _encoded(tower, images), 0
    for image in images:
        _encoded(tower, [image])
        (cos, sin), places = seen["position_embeddings"], seen["position_ids"]
        query, key = (
            apply_multidimensional_rope(seen[name], cos, sin, places)[0]
            for name in ("query", "key")
        )
        received = torch.einsum("qhd,khd->hqk", query, key).softmax(dim=-1).mean(dim=(0, 1))
        rows, columns = image.layout.whole_grid or (0, 0)
        squares = (rows, 3, columns, 3)
        expected = {
            Need.IMPORTANCE: received.view(squares).sum(dim=(1, 3)).flatten(),
            Need.MERGER_NORM: seen["last"][0].norm(dim=-1).view(squares).sum(dim=(1, 3)).flatten(),
            Need.KEYS: key.mean(dim=1).view(*squares, -1).mean(dim=(1, 3)).flatten(0, 1),
        }
        stop = start + rows * columns
        for need, values in expected.items():
            assert torch.allclose(found[str(need)][start:stop], values, rtol=1e-3, atol=1e-5), need
        start = stop
    for hook in hooks:
        hook.remove()
    assert start == len(found[FEATURES])


@torch.no_grad()
def test_a_batch_is_never_padded_to_more_patches_than_it_has(made: Any) -> None:
    model, _ = made
    calls: list[tuple[int, int]] = []
    hook = model.vision_tower.patch_embedder.register_forward_pre_hook(
        lambda _, args: calls.append(tuple(args[0].shape[:2]))
    )
    tower, images = PooledTower(model), _images(made)
    _encoded(tower, images)
    assert calls == [(2, 9 * 63), (1, 9 * 70)], "in two calls, since three of 70 tokens are more"
    calls.clear()
    _encoded(tower, images[:1] * 5)
    assert calls == [(5, 9 * 63)], "without any padding"
    hook.remove()


def test_another_attention_is_refused_when_the_model_is_loaded(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = made[0].vision_tower
    monkeypatch.setattr(tower.config, "_attn_implementation", "flash_attention_2")
    with pytest.raises(RuntimeError, match="is 'flash_attention_2'; allowed: 'sdpa', 'eager'"):
        PooledTower(made[0])
    with pytest.raises(RuntimeError, match="Linear has no Gemma4VisionAttention at encoder.layers"):
        compat.hf_attention(torch.nn.Linear(1, 1), "encoder.layers", -1, "self_attn")
