"""What `cls_importance` alone promises: the same values in any batch."""

from __future__ import annotations

import pytest
import torch
from padded_batch import HEADS, LENGTHS, VALID, WAYS, drawn, padded
from vtprune_kernels.cls_importance import SPECS
from vtprune_kernels.spec import features

(SPEC,) = SPECS


@pytest.mark.usefixtures("interpreted", "poisoned")
def test_an_image_scores_the_same_in_any_batch() -> None:
    inputs = SPEC.make_inputs("random", 150, torch.bfloat16, "cpu")
    together = SPEC.launcher(**inputs)
    inputs["query"], inputs["key"] = inputs["query"][1:], inputs["key"][1:]
    assert torch.equal(SPEC.launcher(**inputs), together[1:])


@pytest.mark.parametrize(("way", "garbage"), WAYS)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_a_padded_batch_scores_as_each_image(way: str, garbage: float) -> None:
    """To the bit in the kernels; torch's softmax adds in an order that the width sets."""
    run, width = getattr(SPEC, way), HEADS * 16
    first = features("random", (2, len(LENGTHS), 1, width), torch.float32, "cpu")
    images = [drawn(width, 20), drawn(width, 40)]
    query, key = (
        torch.cat([cls, padded(rows, garbage)], dim=1)
        for cls, rows in zip(first, images, strict=True)
    )
    together = run(query, key, HEADS, 0.2, valid=VALID)
    for image, n in enumerate(LENGTHS):
        end = slice(image, image + 1), slice(0, n + 1)
        alone = run(query[end], key[end], HEADS, 0.2)[0]
        atol = 0.0 if way == "launcher" else 1e-7
        torch.testing.assert_close(together[image, :n], alone, rtol=0, atol=atol)
        assert not together[image, n:].any()
