"""What `top_k_sorted` alone promises: the order of every float, and of padded rows."""

from __future__ import annotations

import math

import pytest
import torch
from padded_batch import COUNTS, KEEP, VALID, WAYS, drawn, kept_alone, padded
from vtprune_kernels.top_k_sorted import SPECS

(SPEC,) = SPECS


@pytest.mark.usefixtures("interpreted", "poisoned")
def test_every_float_has_its_place_in_the_order() -> None:
    nan, inf = math.nan, math.inf
    scores = torch.tensor([[nan, 1.0, -0.0, 0.0, inf, -nan, -inf, 2.0, -inf]])
    for k in range(10):
        found = SPEC.launcher(scores, k)
        torch.testing.assert_close(found, SPEC.reference(scores, k))


@pytest.mark.parametrize(("way", "garbage"), WAYS)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_a_padded_batch_keeps_what_each_image_keeps(way: str, garbage: float) -> None:
    run, scores = getattr(SPEC, way), [rows[:, 0] for rows in drawn()]
    together = run(padded(scores, garbage), KEEP, VALID, COUNTS)
    for image, score in enumerate(scores):
        assert together[image].tolist() == kept_alone(run, image, score[None])
