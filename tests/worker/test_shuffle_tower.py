"""What methods read of 2 x 2 patches is of the token that these patches become."""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.models.internvl import InternVLChatModel

from vllm_pruner.methods.base import Need
from vllm_pruner.worker.probe import AttentionProbe
from vllm_pruner.worker.shuffle_tower import ShuffleTower


def _tower() -> Any:
    tower: Any = object.__new__(ShuffleTower)
    chat: Any = object.__new__(InternVLChatModel)
    torch.nn.Module.__init__(chat)
    chat.ps_version = "v2"
    tower._shuffle, tower._ratio, tower.patches_per_row = chat.pixel_shuffle, 0.5, 4
    tower._probe = object.__new__(AttentionProbe)
    tower._probe._shards = 1
    return tower


def test_scores_are_summed_and_keys_averaged_over_squares_in_raster_order() -> None:
    rows, columns = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    token = (rows // 2 * 3 + columns // 2).flatten()  # 3 x 3 tokens of 2 x 2 patches
    scores = torch.rand(2, 1 + 36)
    sums = torch.zeros(2, 9).index_add_(1, token, scores[:, 1:])
    tower = _tower()
    assert torch.allclose(tower._fold(Need.RECEIVED, scores), sums)
    assert torch.allclose(tower._fold(Need.IMPORTANCE, scores[:, 1:]), sums)
    keys = torch.rand(2, 1 + 36, 5)
    means = torch.zeros(2, 9, 5).index_add_(1, token, keys[:, 1:]) / 4
    assert torch.allclose(tower._fold(Need.KEYS, keys), means)


def test_a_token_is_made_of_the_patches_that_its_scores_are_of() -> None:
    patches = torch.arange(1 + 36.0).view(1, -1, 1).expand(-1, -1, 3)
    tower = _tower()
    tokens = tower._shuffled(patches)
    assert tokens.shape == (1, 9, 4, 3)
    assert torch.equal(tower._fold(Need.RECEIVED, patches[..., 0]), tokens[..., 0].sum(dim=2))
