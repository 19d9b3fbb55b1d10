"""Plans on their way to the model, and what they make of an image's identity."""

from __future__ import annotations

from typing import Any

import torch

from vllm_pruner.plan import FIELDS, ImagePlan, foreign_prefix
from vllm_pruner.settings.config import PruneConfig


def _config(**settings: Any) -> PruneConfig:
    """As the model sees it: with the defaults of the options written out."""
    return PruneConfig.from_canonical(PruneConfig.parse(settings).canonical())


PRUNED = _config(tokens=64)
PLANS = [
    ImagePlan(PRUNED, "0123abcd"),
    ImagePlan(_config(method="adafv", rate=0.5), "given by a client: ü", (5, 6)),
    ImagePlan(PRUNED, ImagePlan.ANONYMOUS),
    ImagePlan(_config(rate=0.5).of_video(), "clip", keep=9, between=((7, 8, 7), (7,))),
]


def test_plans_come_out_of_the_fields_as_they_went_in() -> None:
    rows = [plan.fields() for plan in PLANS]
    fields: dict[str, Any] = {name: [row[name] for row in rows] for name in FIELDS}
    fields["pixel_values"] = torch.zeros(3)
    assert ImagePlan.pop_all(fields) == PLANS
    assert list(fields) == ["pixel_values"]
    assert [ImagePlan.of_item(row) for row in rows] == PLANS


def test_rows_that_vllm_has_stacked_are_read_as_well() -> None:
    for plan in PLANS:
        stacked = {name: row.unsqueeze(0) for name, row in plan.fields().items()}
        assert ImagePlan.pop_all(stacked) == [plan]


def test_images_without_plans_have_none() -> None:
    assert ImagePlan.pop_all({"pixel_values": torch.zeros(1)}) == []


def test_an_identity_is_of_image_settings_and_text() -> None:
    base = ImagePlan(PRUNED, "image", (1, 2))
    same = ImagePlan(PruneConfig.parse({"tokens": 64, "options": {"alpha": 1}}), "image", (1, 2))
    assert base.identity == same.identity
    others = [
        ImagePlan(PRUNED, "image", (12,)),
        ImagePlan(PRUNED, "image", (2, 1)),
        ImagePlan(PRUNED, "other", (1, 2)),
        ImagePlan(PruneConfig.parse({"tokens": 65}), "image", (1, 2)),
        ImagePlan(PruneConfig.parse({"tokens": 64, "method": "adafv"}), "image", (1, 2)),
        *(ImagePlan(PRUNED, "image", (1, 2), between=each) for each in [((1, 2),), ((1,), (2,))]),
    ]
    assert len({plan.identity for plan in [base, *others]}) == len(others) + 1


def test_every_identity_is_a_hexadecimal_number() -> None:
    """LMCache reads it as one, in vLLM's scheduler."""
    own = ImagePlan(PRUNED, "image", (1, 2)).identity
    for identity in (own, foreign_prefix("somebody's") + own):
        assert int(identity, 16) >= 0
