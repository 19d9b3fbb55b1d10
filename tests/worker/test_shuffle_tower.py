"""What methods read of a square of patches is of the token that these patches become."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vllm.model_executor.models.idefics3 import Idefics3Connector
from vllm.model_executor.models.internvl import InternVLChatModel

from vllm_pruner.methods.base import Need
from vllm_pruner.worker.probe import AttentionProbe
from vllm_pruner.worker.shuffle_tower import ShuffleTower

SIDE = 2


def _intern(patches: torch.Tensor) -> torch.Tensor:
    chat: Any = object.__new__(InternVLChatModel)
    torch.nn.Module.__init__(chat)
    chat.ps_version = "v2"
    shuffled: torch.Tensor = chat.pixel_shuffle(patches, scale_factor=1 / SIDE)
    return shuffled


def _idefics(patches: torch.Tensor) -> torch.Tensor:
    connector: Any = object.__new__(Idefics3Connector)
    shuffled: torch.Tensor = connector.pixel_shuffle(patches.flatten(1, 2), SIDE)
    return shuffled


@pytest.fixture(params=[_intern, _idefics])
def tower(request: pytest.FixtureRequest) -> Any:
    tower: Any = object.__new__(ShuffleTower)
    tower._shuffle, tower.patches_per_row = request.param, SIDE**2
    tower._probe = object.__new__(AttentionProbe)
    tower._probe._shards = 1
    return tower


def test_scores_are_summed_and_keys_averaged_over_squares_in_raster_order(tower: Any) -> None:
    rows, columns = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    token = (rows // SIDE * 3 + columns // SIDE).flatten()  # 3 x 3 tokens of 2 x 2 patches
    scores = torch.rand(2, 1 + 36)
    sums = torch.zeros(2, 9).index_add_(1, token, scores[:, 1:])
    assert torch.allclose(tower._fold(Need.RECEIVED, scores), sums)
    assert torch.allclose(tower._fold(Need.IMPORTANCE, scores[:, 1:]), sums)
    assert torch.allclose(tower._fold(Need.MERGER_NORM, scores), sums)
    keys = torch.rand(2, 1 + 36, 5)
    means = torch.zeros(2, 9, 5).index_add_(1, token, keys[:, 1:]) / 4
    assert torch.allclose(tower._fold(Need.KEYS, keys), means)


def test_a_token_is_made_of_the_patches_that_its_scores_are_of(tower: Any) -> None:
    patches = torch.arange(1 + 36.0).view(1, -1, 1).expand(-1, -1, 3)
    tokens = tower._shuffled(patches)
    assert tokens.shape == (1, 9, 4, 3)
    assert torch.equal(tower._fold(Need.RECEIVED, patches[..., 0]), tokens[..., 0].sum(dim=2))
