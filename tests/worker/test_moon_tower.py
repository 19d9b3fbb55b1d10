"""MoonViT and MoonViT3d in two halves against vLLM's own forward: what is projected, and where
attention goes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pruned_model import be_alone
from transformers import Kimi_K25VisionConfig
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.models.kimi_k25_vit import (
    KimiK25MultiModalProjector,
    MoonViT3dPretrainedModel,
    vision_tower_forward,
)
from vllm.model_executor.models.kimi_vl import KimiVLMultiModalProjector
from vllm.model_executor.models.moonvit import MoonVitPretrainedModel
from vllm.transformers_utils.configs.kimi_k3 import KimiK3VisionConfig
from vllm.transformers_utils.configs.moonvit import MoonViTConfig

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.methods.base import Need
from vllm_pruner.tower import FEATURES, EncoderImage
from vllm_pruner.worker.moon_tower import MoonTower, MoonTower3d, NormedMoonTower3d

GRIDS = [(2, 3), (1, 4)]
"""Rows and columns of tokens of two pictures."""


@pytest.fixture(scope="module", params=["Kimi-VL", "Kimi-K2.5", "Kimi-K3"])
def model(request: pytest.FixtureRequest) -> Any:
    """The two parts of the model in front of its decoder, with random weights, our tower of them,
    and what vLLM makes of pictures."""
    # K2.5's positions would be compiled: twenty seconds.
    with set_current_vllm_config(VllmConfig()), torch.compiler.set_stance("force_eager"):
        be_alone()
        made = MAKERS[request.param]()
        generator = torch.Generator().manual_seed(0)
        for weight in (*made.vision_tower.parameters(), *made.projector.parameters()):
            weight.data = torch.randn(weight.shape, generator=generator) * 0.1
        for layer in (*made.vision_tower.modules(), *made.projector.modules()):
            if method := getattr(layer, "quant_method", None):  # as when weights are loaded
                method.process_weights_after_loading(layer)
        yield made


SIZES = {
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
}


def _kimi_vl() -> SimpleNamespace:
    vision = MoonViTConfig(init_pos_emb_height=8, init_pos_emb_width=8, **SIZES)
    config = SimpleNamespace(vision_config=vision, text_config=SimpleNamespace(hidden_size=32))
    tower, projector = MoonVitPretrainedModel(vision), KimiVLMultiModalProjector(config)
    return SimpleNamespace(
        vision_tower=tower,
        projector=projector,
        multi_modal_projector=projector,
        config=config,
        ours=MoonTower,
        stock=lambda pixels, grids: projector(torch.cat(tower(pixels, torch.tensor(grids)))),
    )


def _kimi_k25() -> SimpleNamespace:
    vision = Kimi_K25VisionConfig(pos_emb_height=8, pos_emb_width=8, **SIZES)
    return _moon3d(vision, MoonTower3d)


def _kimi_k3() -> SimpleNamespace:
    """Whose attention is wider than its rows."""
    sizes = {f"vt_{name}": size for name, size in SIZES.items()}
    edges = {"init_pos_emb_height": 8, "init_pos_emb_width": 8}
    return _moon3d(KimiK3VisionConfig(qkv_hidden_size=96, **edges, **sizes), NormedMoonTower3d)


def _moon3d(vision: Any, ours: Any) -> SimpleNamespace:
    tower, projector = MoonViT3dPretrainedModel(vision), KimiK25MultiModalProjector(vision, 32)

    def rows(pixels: torch.Tensor, grids: list[tuple[int, int]]) -> torch.Tensor:
        frames = torch.tensor([(1, *grid) for grid in grids])
        return torch.cat(vision_tower_forward(tower, pixels, frames, projector, False))

    return SimpleNamespace(
        vision_tower=tower,
        projector=projector,
        mm_projector=projector,
        config=SimpleNamespace(vision_config=vision),
        ours=ours,
        stock=rows,
    )


MAKERS = {"Kimi-VL": _kimi_vl, "Kimi-K2.5": _kimi_k25, "Kimi-K3": _kimi_k3}


def _images() -> list[EncoderImage]:
    generator = torch.Generator().manual_seed(1)
    return [
        EncoderImage(torch.randn(4 * rows * columns, 3, 14, 14, generator=generator), layout)
        for rows, columns in GRIDS
        for layout in [GridLayout(rows, columns)]
    ]


@torch.no_grad()
def test_both_halves_are_the_projector_of_vllm(model: Any) -> None:
    images = _images()
    tower = model.ours(model)
    columns = tower.encode(images, frozenset({Need.IMPORTANCE}))
    pixels = torch.cat([image.pixels for image in images])
    expected = model.stock(pixels, [(2 * rows, 2 * across) for rows, across in GRIDS])
    assert torch.allclose(tower.project(columns[FEATURES]), expected, atol=1e-5)
    width, dtype = tower.columns(frozenset())[FEATURES]
    assert columns[FEATURES].shape == (10, width) and columns[FEATURES].dtype == dtype


@torch.no_grad()
def test_a_token_has_the_attention_of_its_own_square_of_patches(model: Any) -> None:
    """Of the last layer, over the picture that it is in."""
    found: list[torch.Tensor] = []
    attention = model.vision_tower.encoder.blocks[-1].attn
    hook = attention.register_forward_pre_hook(lambda _, args: found.extend(args[:2]))
    importance = model.ours(model).encode(_images(), frozenset({Need.IMPORTANCE}))
    hook.remove()
    start, expected = 0, []
    for rows, columns in GRIDS:
        stop = start + 4 * rows * columns
        query, key = (each[0, start:stop] for each in found)
        logits = torch.einsum("qhd,khd->hqk", query, key) * attention.scale
        received = logits.softmax(dim=-1).mean(dim=(0, 1)).view(rows, 2, columns, 2)
        expected.append(received.sum(dim=(1, 3)).flatten())
        start = stop
    assert torch.allclose(importance[str(Need.IMPORTANCE)], torch.cat(expected), atol=1e-5)


@torch.no_grad()
def test_a_token_has_the_norms_of_its_patches_before_they_are_normalised(model: Any) -> None:
    """The tower's last norm would make them nearly equal."""
    found: list[torch.Tensor] = []
    last = model.vision_tower.encoder.blocks[-1]
    hook = last.register_forward_hook(lambda _, args, output: found.append(output))
    importance = model.ours(model).encode(_images(), frozenset({Need.MERGER_NORM}))
    hook.remove()
    parts = found[0].square().sum(dim=-1).sqrt().split([4 * r * c for r, c in GRIDS])
    expected = [
        part.view(rows, 2, columns, 2).sum(dim=(1, 3)).flatten()
        for part, (rows, columns) in zip(parts, GRIDS, strict=True)
    ]
    assert torch.allclose(importance[str(Need.MERGER_NORM)], torch.cat(expected), rtol=1e-5)
