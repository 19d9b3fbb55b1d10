"""What single operators promise beyond agreement with their references."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from vtprune_kernels import cosine_gram, greedy_select, row_max_cosine, text_relevance
from vtprune_kernels.cls_importance import SPEC as CLS_IMPORTANCE
from vtprune_kernels.cosine_gram import SPEC as COSINE_GRAM
from vtprune_kernels.dedup import SPEC as DEDUP
from vtprune_kernels.greedy_select import SPEC as GREEDY_SELECT
from vtprune_kernels.row_max_cosine import SPEC as ROW_MAX_COSINE
from vtprune_kernels.spec import KINDS, features
from vtprune_kernels.top_k_sorted import SPEC as TOP_K_SORTED

INTERPRETED = pytest.mark.usefixtures("interpreted", "poisoned")


@INTERPRETED
def test_top_k_orders_what_no_number_line_does() -> None:
    nan, inf = math.nan, math.inf
    scores = torch.tensor([[nan, 1.0, -0.0, 0.0, inf, -nan, -inf, 2.0, -inf]])
    for k in range(10):
        found = TOP_K_SORTED.launcher(scores, k)
        torch.testing.assert_close(found, TOP_K_SORTED.reference(scores, k))


@INTERPRETED
def test_an_image_scores_the_same_in_any_batch() -> None:
    inputs = CLS_IMPORTANCE.make_inputs("random", 150, torch.bfloat16, "cpu")
    together = CLS_IMPORTANCE.launcher(**inputs)
    inputs["query"], inputs["key"] = inputs["query"][1:], inputs["key"][1:]
    assert torch.equal(CLS_IMPORTANCE.launcher(**inputs), together[1:])


@INTERPRETED
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_gram_of_rows_without_direction_is_zero(dtype: torch.dtype) -> None:
    rows = features("random", (1, 6, 40), dtype, "cpu")
    rows[0, 1] = 0
    rows[0, 2, 3] = math.inf
    rows[0, 3, 4] = math.nan
    rows[0, 4] *= 1e-34  # norm below 2**-100, squares below the smallest float32
    found = COSINE_GRAM.launcher(rows)
    assert torch.equal(found, COSINE_GRAM.reference(rows))
    assert not found[0, 1:4].any()
    torch.testing.assert_close(found[0, [0, 5], [0, 5]], torch.ones(2))


@INTERPRETED
@pytest.mark.parametrize("kind", ["clustered", "constant", "near-tie"])
@pytest.mark.parametrize(
    ("rows", "keep", "step"), [(130, 3, 16), (97, 96, 8), (64, 1, 32), (33, 0, 4), (3, 1, 8)]
)
def test_dedup_agrees_when_neighbourhoods_run_out(
    rows: int, keep: int, step: int, kind: str
) -> None:
    gram = cosine_gram(features(kind, (2, rows, 8), torch.float32, "cpu", seed=rows))
    found = DEDUP.launcher(gram, keep, step)
    assert torch.equal(found, DEDUP.reference(gram, keep, step))


@INTERPRETED
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objective", ["max-min", "coverage", "dpp", "demand"])
def test_greedy_agrees_for_every_objective(objective: str, kind: str) -> None:
    inputs = GREEDY_SELECT.make_inputs(kind, 40, torch.float32, "cpu", objective=objective)
    inputs["keep"] = 12
    for weight in (inputs["weight"], None):
        inputs["weight"] = weight
        assert torch.equal(GREEDY_SELECT.launcher(**inputs), GREEDY_SELECT.reference(**inputs))


def test_greedy_is_the_formulas_written_out() -> None:
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


@INTERPRETED
def test_assignment_to_targets_agrees_and_ties_go_to_the_lower_one() -> None:
    rows = features("random", (2, 37, 40), torch.float32, "cpu")
    targets = torch.cat([rows[:, ::9], rows[:, ::9]], dim=1)
    best, index = ROW_MAX_COSINE.launcher(rows, targets)
    wanted = ROW_MAX_COSINE.reference(rows, targets)
    assert torch.equal(best, wanted[0]) and torch.equal(index, wanted[1])
    assert index.max() < 5


def test_row_max_of_nothing_is_minus_infinity() -> None:
    best, index = row_max_cosine(torch.ones(1, 3, 4), mask="before")
    assert best[0, 0] == -math.inf and index[0].tolist() == [-1, 0, 0]


def test_relevance_is_the_formula_for_each_image() -> None:
    generator = torch.Generator().manual_seed(6)
    visual, text = (torch.randn(n, 24, generator=generator) for n in (50, 9))
    found = text_relevance(visual, text, torch.tensor([0, 20, 50]), torch.tensor([0, 4, 9]))
    for v, t in ((slice(0, 20), slice(0, 4)), (slice(20, 50), slice(4, 9))):
        cosine = torch.cosine_similarity(text[t, None], visual[None, v], dim=-1)
        torch.testing.assert_close(found[v], (100 * cosine).softmax(dim=1).amax(dim=0))


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda: greedy_select(torch.ones(1, 2, 2), 1, "best"), id="objective"),
        pytest.param(lambda: greedy_select(torch.ones(1, 2, 2), 3, "dpp"), id="keep"),
        pytest.param(lambda: row_max_cosine(torch.ones(1, 2, 2), mask="after"), id="mask"),
    ],
)
def test_operators_refuse_nonsense(call: object) -> None:
    with pytest.raises(ValueError, match="allowed"):
        call()  # type: ignore[operator]


def test_without_triton_the_references_do_everything() -> None:
    program = """
import sys
sys.modules["triton"] = None  # importing it raises ImportError
import torch, vtprune_kernels as kernels
assert "not installed" in kernels.implementation(torch.device("cuda"))
print(kernels.dedup(kernels.cosine_gram(torch.eye(9)[None]), 3).tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(DEDUP.reference(torch.eye(9)[None], 3, 8).tolist())
