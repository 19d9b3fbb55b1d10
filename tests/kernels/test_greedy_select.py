"""What `greedy_select` alone promises: its formulas, its arguments, any batch."""

from __future__ import annotations

import pytest
import torch
from padded_batch import (
    COUNTS,
    KEEP,
    LONGEST,
    VALID,
    WAYS,
    drawn,
    grams,
    kept_alone,
    padded,
    padded_grams,
)
from vtprune_kernels import cosine_gram, greedy_cover_triton, greedy_select
from vtprune_kernels.greedy_select import SPECS
from vtprune_kernels.spec import KINDS, Spec, features

EACH = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.case)


@EACH
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("interpreted", "poisoned", "coarse")
def test_kernel_agrees_with_and_without_weights(spec: Spec, kind: str) -> None:
    inputs = spec.make_inputs(kind, 40, torch.float32, "cpu")
    inputs["keep"] = 12
    for weight in (inputs["weight"], None):
        inputs["weight"] = weight
        assert torch.equal(spec.launcher(**inputs), spec.reference(**inputs))


def test_it_is_the_formulas_written_out() -> None:
    rows, keep = 30, 7
    gram = cosine_gram(features("random", (1, rows, 16), torch.float32, "cpu"))
    weight = torch.rand(1, rows, generator=torch.Generator().manual_seed(5)) / rows
    s, w = gram[0].double(), weight[0].double()
    taken: dict[str, list[int]] = {name: [] for name in ("max-min", "coverage", "demand", "dpp")}
    for objective, chosen in taken.items():
        for _ in range(keep):
            score = {}
            for i in set(range(rows)) - set(chosen):
                others = chosen or [j for j in range(rows) if j != i]
                if objective == "max-min":
                    score[i] = float((1 - s[i, others]).min())
                elif objective in ("coverage", "demand"):
                    cover = s[:, chosen].amax(dim=1) if chosen else torch.zeros(rows).double()
                    gain = (s[:, i] - cover.clamp_min(0)).clamp_min(0)
                    score[i] = float(w[i] * gain.sum() if objective == "coverage" else w @ gain)
                else:
                    both = [*chosen, i]
                    big = w * rows
                    kernel = big[both, None] * s[both][:, both] * big[None, both]
                    score[i] = float(torch.linalg.det(kernel))
            chosen.append(max(score, key=lambda i: score[i]))
        found = greedy_select(gram, keep, objective, weight * (rows if objective == "dpp" else 1))
        assert found[0].tolist() == sorted(chosen)


@pytest.mark.parametrize("rows", [300, 390])
@pytest.mark.usefixtures("interpreted", "poisoned", "coarse")
def test_a_cover_may_be_longer_than_what_is_held(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is in memory, and a round reads it in chunks."""
    monkeypatch.setattr(greedy_cover_triton, "_HELD", 256)
    spec = next(spec for spec in SPECS if spec.case == "coverage")
    inputs = {**spec.make_inputs("random", rows, torch.float32, "cpu"), "keep": 5}
    assert torch.equal(spec.launcher(**inputs), spec.reference(**inputs))


@pytest.mark.slow
@pytest.mark.parametrize("rows", [120, 400, 700])
@pytest.mark.parametrize("objective", ["coverage", "demand"])
@pytest.mark.usefixtures("interpreted", "poisoned", "coarse")
def test_the_last_tiles_of_a_held_cover_may_be_missing(objective: str, rows: int) -> None:
    """Of one tile none, of four none, of eight the last two: those in the second half are read
    apart."""
    spec = next(spec for spec in SPECS if spec.case == objective)
    inputs = {**spec.make_inputs("random", rows, torch.float32, "cpu"), "keep": 5}
    assert torch.equal(spec.launcher(**inputs), spec.reference(**inputs))


@pytest.mark.parametrize("objective", ["coverage", "demand"])
@pytest.mark.parametrize("kind", ["random", "near-tie"])
@pytest.mark.usefixtures("interpreted", "poisoned", "coarse")
def test_what_is_chosen_lazily_is_what_is_best_at_every_step(objective: str, kind: str) -> None:
    """So many that scores go stale again and again, and whole parts are taken."""
    spec = next(spec for spec in SPECS if spec.case == objective)
    inputs = {**spec.make_inputs(kind, 70, torch.float32, "cpu"), "keep": 66}
    assert torch.equal(spec.launcher(**inputs), spec.reference(**inputs))


@EACH
@pytest.mark.parametrize("images", [1, 2, 7])
def test_an_image_keeps_the_same_in_any_batch(spec: Spec, images: int) -> None:
    gram = cosine_gram(torch.randn(7, 120, 96, generator=torch.Generator().manual_seed(9)))
    kept = greedy_select(gram, 20, spec.case)
    assert torch.equal(greedy_select(gram[:images], 20, spec.case), kept[:images])


@EACH
@pytest.mark.parametrize(("way", "garbage"), WAYS)
@pytest.mark.usefixtures("interpreted", "poisoned", "rows_share_programs")
def test_a_padded_batch_keeps_what_each_image_keeps(spec: Spec, way: str, garbage: float) -> None:
    run, images = getattr(spec, way), grams()
    weights = [rows[:, 1].abs().clamp(max=1.0) / LONGEST for rows in drawn(seed=50)]
    together = run(
        padded_grams(images, garbage), KEEP, spec.case, padded(weights, garbage), VALID, COUNTS
    )
    for image, (gram, weight) in enumerate(zip(images, weights, strict=True)):
        options = {"objective": spec.case, "weight": weight[None]}
        assert together[image].tolist() == kept_alone(run, image, gram[None], **options)


@pytest.mark.parametrize(
    ("keep", "objective"),
    [pytest.param(1, "best", id="objective"), pytest.param(3, "dpp", id="keep")],
)
def test_nonsense_is_refused(keep: int, objective: str) -> None:
    with pytest.raises(ValueError, match="allowed"):
        greedy_select(torch.ones(1, 2, 2), keep, objective)
