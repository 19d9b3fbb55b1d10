"""What `dedup` alone promises: agreement however few rows are left, and in a padded batch."""

from __future__ import annotations

import pytest
import torch
from padded_batch import COUNTS, KEEP, VALID, WAYS, grams, kept_alone, padded_grams
from vtprune_kernels import cosine_gram
from vtprune_kernels.dedup import SPECS
from vtprune_kernels.spec import features

(SPEC,) = SPECS


@pytest.mark.usefixtures("interpreted", "poisoned")
@pytest.mark.parametrize("kind", ["clustered", "constant", "near-tie"])
@pytest.mark.parametrize(
    ("rows", "keep", "step"), [(130, 3, 16), (97, 96, 8), (64, 1, 32), (33, 0, 4), (3, 1, 8)]
)
def test_kernel_agrees_when_neighbourhoods_run_out(
    rows: int, keep: int, step: int, kind: str
) -> None:
    gram = cosine_gram(features(kind, (2, rows, 8), torch.float32, "cpu", seed=rows))
    found = SPEC.launcher(gram, keep, step)
    assert torch.equal(found, SPEC.reference(gram, keep, step))


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize(("way", "garbage"), WAYS)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_a_padded_batch_keeps_what_each_image_keeps(way: str, garbage: float, step: int) -> None:
    run, images = getattr(SPEC, way), grams()
    together = run(padded_grams(images, garbage), KEEP, step, VALID, COUNTS)
    for image, gram in enumerate(images):
        assert together[image].tolist() == kept_alone(run, image, gram[None], step=step)
