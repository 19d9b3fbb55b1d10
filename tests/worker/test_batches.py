"""Images stay in order and whole, whatever is taken together."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.tower import EncoderImage
from vllm_pruner.worker.batches import Batch, batches

ONE = CropLayout(16, 4)
LAYOUTS = [
    ONE,
    CropLayout(16, 4, (1, 2), (0, 4), (0, 8)),
    CropLayout(16, 4, (2, 2), (0, 8), (1, 7)),
]


def _image(layout: CropLayout) -> EncoderImage:
    return EncoderImage(torch.zeros(layout.crops, 3, 2, 2), layout)


def _plan(place: int, **settings: Any) -> ImagePlan:
    return ImagePlan(PruneConfig.parse(settings), str(place), (place,))


def _taken(found: list[Batch]) -> list[str]:
    return [plan.image for batch in found for plan in batch.plans]


@pytest.mark.parametrize("crops_at_once", [1, 5, 6, 100])
def test_a_batch_holds_no_more_rows_than_the_tower_may_encode(crops_at_once: int) -> None:
    draw = random.Random(crops_at_once)
    images = [_image(draw.choice(LAYOUTS)) for _ in range(40)]
    plans = [_plan(place, tokens=4) for place in range(40)]
    found = list(batches(images, plans, crops_at_once * ONE.base))
    assert _taken(found) == [plan.image for plan in plans]
    crops = [[image.layout.crops for image in batch.images] for batch in found]
    assert all(sum(each) <= crops_at_once or len(each) == 1 for each in crops)
    # No two neighbours would have fitted together.
    assert all(
        sum(before) + after[0] > crops_at_once
        for before, after in zip(crops, crops[1:], strict=False)
    )


def test_a_group_shares_layout_and_settings_wherever_its_images_stand() -> None:
    layouts = [LAYOUTS[0], LAYOUTS[0], LAYOUTS[1], LAYOUTS[1], LAYOUTS[0], LAYOUTS[0]]
    budgets = [4, 4, 4, 5, 5, 4]
    plans = [_plan(place, tokens=tokens) for place, tokens in enumerate(budgets)]
    (batch,) = batches([_image(layout) for layout in layouts], plans, 10_000)
    groups = batch.groups()
    assert [group.places for group in groups] == [[0, 1, 5], [2], [3], [4]]
    assert [group.texts for group in groups] == [[(0,), (1,), (5,)], [(2,)], [(3,)], [(4,)]]
    assert [group.config.tokens for group in groups] == [4, 4, 5, 5]
    numbers = torch.arange(10 * 16)
    crops = [group.of(numbers)[:, ::16].div(16, rounding_mode="floor") for group in groups]
    assert [each.tolist() for each in crops] == [
        [[0], [1], [9]],
        [[2, 3, 4]],
        [[5, 6, 7]],
        [[8]],
    ]


def test_joined_frames_share_a_group_if_the_same_is_between_them() -> None:
    clip = GridLayout(2, 2, 3, apart=True)
    texts = [((7, 8), (7, 9)), ((7, 8), (7, 9)), ((7,), (8, 7, 9))]
    plans = [replace(_plan(n, tokens=4), between=text) for n, text in enumerate(texts)]
    images = [EncoderImage(torch.zeros(clip.tokens, 2), clip)] * 3
    groups = next(batches(images, plans, 10_000)).groups()
    assert [(group.places, group.between) for group in groups] == [
        ([0, 1], texts[0]),
        ([2], texts[2]),
    ]


def test_neighbours_are_a_view_of_the_batch() -> None:
    plans = [_plan(place, tokens=4) for place in range(3)]
    (group,) = next(batches([_image(ONE)] * 3, plans, 100)).groups()
    column = torch.rand(3 * 16, 5)
    assert group.of(column).data_ptr() == column.data_ptr()


def test_images_that_are_shrunk_alike_are_encoded_together() -> None:
    settings = [{"tokens": 4}, {"tokens": 4}, {"tokens": 9}, {"rate": 0.0}]
    plans = [_plan(place, method="resize", **each) for place, each in enumerate(settings)]
    plans += [_plan(4, tokens=4)]
    found = list(batches([_image(ONE)] * 5, plans, 1_000))
    assert [batch.small_grid for batch in found] == [(2, 2), (3, 3), None]
    assert [len(batch.images) for batch in found] == [2, 1, 2]


def test_no_images_make_no_batches() -> None:
    assert list(batches([], [], 1)) == []
