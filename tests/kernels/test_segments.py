"""Segments of unequal length in one call: as each alone, whatever the padding contains."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from vtprune_kernels import cosine_gram, dedup
from vtprune_kernels.segments import end_of, kept_of
from vtprune_kernels.spec import Spec, all_specs, features

pytestmark = pytest.mark.slow

SPECS = {spec.name: spec for spec in all_specs()}
INTERPRETED = pytest.mark.usefixtures("interpreted", "poisoned")
SHARING = pytest.mark.usefixtures("rows_share_programs")
N, WIDTH, HEADS, KEEP = 40, 40, 2, 7

LENGTHS = (37, 0, 1, 40, 4)
COUNTS = torch.tensor([5, 3, 2, 7, 7], dtype=torch.int32)


def _valid() -> torch.Tensor:
    """Padding at the end of most segments, all of one, around and inside the first one."""
    valid = torch.arange(N) < torch.tensor(LENGTHS)[:, None]
    valid[0, :3] = valid[0, 20:22] = False
    return valid


VALID = _valid()


def _rows(width: int = WIDTH, seed: int = 0) -> torch.Tensor:
    return features("clustered", (len(LENGTHS), N, width), torch.float32, "cpu", seed)


def _gram() -> torch.Tensor:
    return cosine_gram(_rows(16))


def _attention() -> dict[str, Any]:
    query, key = _rows(HEADS * 24, 1), _rows(HEADS * 24, 2)
    return {"query": query, "key": key, "num_heads": HEADS, "scale": 0.2, "valid": VALID}


def _cls_attention() -> dict[str, Any]:
    found = _attention()
    pad = torch.nn.functional.pad
    return {
        **found,
        **{name: pad(found[name], (0, 0, 1, 0), value=0.3) for name in ("query", "key")},
    }


def _greedy(objective: str) -> dict[str, Any]:
    weight = torch.rand(len(LENGTHS), N, generator=torch.Generator().manual_seed(5))
    if objective == "demand":
        weight = weight / N
    some = {"gram": _gram(), "keep": KEEP, "objective": objective, "weight": weight}
    return {**some, "valid": VALID, "counts": COUNTS}


def _relevance() -> dict[str, Any]:
    return {
        "visual": _rows().flatten(0, 1),
        "text": features("random", (9, WIDTH), torch.float32, "cpu"),
        "visual_bounds": torch.arange(len(LENGTHS) + 1) * N,
        "text_bounds": torch.tensor([0, 2, 4, 6, 6, 9]),
        "valid": VALID.flatten(),
    }


def _picked() -> dict[str, Any]:
    (spec,) = (spec for spec in all_specs() if spec.name == "picked_sorted")
    inputs = [spec.make_inputs("random", N, torch.float32, "cpu") for _ in range(2)]
    order = torch.cat([each["order"] for each in inputs])[: len(LENGTHS)]
    places = torch.cat([each["places"] for each in inputs])[: len(LENGTHS)]
    firsts = torch.tensor([10, 0, 3, 7, 10])
    absent = torch.arange(places.shape[1]) >= COUNTS[:, None] - 2
    return {
        "order": order,
        "first": 10,
        "places": places.masked_fill(absent, -1),
        "keep": 14,
        "firsts": firsts,
    }


RAGGED: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "cls_importance": ("cls_importance", _cls_attention),
    "column_importance": ("column_importance", _attention),
    "column_importance-merged": (
        "column_importance",
        lambda: {**_attention(), "patches_per_token": 4, "token_of_patch": torch.randperm(N) // 4},
    ),
    "top_k_sorted": (
        "top_k_sorted",
        lambda: {"scores": _rows()[..., 0], "k": KEEP, "valid": VALID, "counts": COUNTS},
    ),
    "top_k_sorted-counts": (
        "top_k_sorted",
        lambda: {"scores": _rows()[..., 0], "k": KEEP, "counts": COUNTS.long()},
    ),
    "relative_scores": (
        "relative_scores",
        lambda: {"scores": _rows()[..., 0], "valid": VALID},
    ),
    "ranked": ("ranked", lambda: {"scores": _rows()[..., 0], "valid": VALID}),
    "picked_sorted": ("picked_sorted", _picked),
    "cosine_gram": (
        "cosine_gram",
        lambda: {
            "features": _rows(),
            "rows": torch.arange(N).expand(len(LENGTHS), N).masked_fill(~VALID, -1),
            "valid": VALID,
        },
    ),
    "dedup": ("dedup", lambda: {"gram": _gram(), "keep": KEEP, "step": 3, "valid": VALID}),
    "dedup-counts": (
        "dedup",
        lambda: {"gram": _gram(), "keep": KEEP, "step": 4, "valid": VALID, "counts": COUNTS},
    ),
    "row_max_cosine": ("row_max_cosine", lambda: {"features": _rows(), "valid": VALID}),
    "row_max_cosine-before": (
        "row_max_cosine",
        lambda: {"features": _rows(), "mask": "before", "valid": VALID},
    ),
    "row_max_cosine-targets": (
        "row_max_cosine",
        lambda: {
            "features": _rows(),
            "targets": _rows(seed=3)[:, :35],
            "valid_targets": VALID[:, :35],
        },
    ),
    "text_relevance": ("text_relevance", _relevance),
    **{
        f"greedy_select-{objective}": ("greedy_select", lambda o=objective: _greedy(o))
        for objective in ("max-min", "coverage", "dpp", "demand")
    },
}


@pytest.mark.parametrize("name", RAGGED)
@INTERPRETED
def test_kernel_agrees_on_segments_of_unequal_length(
    name: str, request: pytest.FixtureRequest
) -> None:
    if name not in ("dedup", "greedy_select-coverage"):  # once each in the tiles of a GPU
        request.getfixturevalue("rows_share_programs")
    spec, make = SPECS[RAGGED[name][0]], RAGGED[name][1]
    inputs = make()
    found, wanted = spec.launcher(**inputs), spec.reference(**inputs)
    atol = spec.tolerance[torch.float32]
    torch.testing.assert_close(found, wanted, rtol=0, atol=atol)


def _with_padding(inputs: dict[str, Any], value: float) -> dict[str, Any]:
    """Overwrite everything that belongs to rows that do not exist."""
    changed = dict(inputs)
    for name in ("scores", "features", "weight", "visual", "query", "key", "gram"):
        if name in inputs and "valid" in inputs:
            tensor, padding = inputs[name].clone(), ~inputs["valid"]
            if name == "gram":
                tensor.masked_fill_(padding[:, None, :], value)
            rows = tensor[:, tensor.shape[1] - N :] if padding.ndim == 2 else tensor
            rows.masked_fill_(
                padding.reshape(*padding.shape, *[1] * (rows.ndim - padding.ndim)), value
            )
            changed[name] = tensor
    if "valid_targets" in inputs:
        absent = ~inputs["valid_targets"].unsqueeze(2)
        changed["targets"] = inputs["targets"].masked_fill(absent, value)
    return changed


@pytest.mark.parametrize(
    "name",
    [name for name, (_, make) in RAGGED.items() if {"valid", "valid_targets"} & make().keys()],
)
@INTERPRETED
@SHARING
def test_what_padding_contains_changes_nothing(name: str) -> None:
    spec, make = SPECS[RAGGED[name][0]], RAGGED[name][1]
    torch.manual_seed(0)
    inputs = make()
    for run in (spec.reference, spec.launcher):
        plain, poisoned = run(**inputs), run(**_with_padding(inputs, math.nan))
        torch.testing.assert_close(poisoned, plain, rtol=0, atol=0)


@pytest.mark.parametrize(
    "spec",
    [spec for spec in all_specs() if "valid" in inspect.signature(spec.op).parameters],
    ids=lambda spec: spec.id,
)
@INTERPRETED
@SHARING
def test_a_mask_of_rows_that_all_exist_changes_no_bit(spec: Spec) -> None:
    inputs = spec.make_inputs("near-tie", 33, torch.float32, "cpu")
    inputs["valid"] = None
    rows = next(
        v for k, v in inputs.items() if k in ("scores", "gram", "features", "key", "visual")
    )
    shape = rows.shape[:1] if spec.name == "text_relevance" else (rows.shape[0], 33)
    for run in (spec.reference, spec.launcher):
        plain = run(**inputs)
        masked = run(**{**inputs, "valid": torch.ones(shape, dtype=torch.bool)})
        torch.testing.assert_close(masked, plain, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["dedup-counts", "top_k_sorted", "greedy_select-coverage"])
def test_a_segment_keeps_what_it_keeps_alone(name: str) -> None:
    spec, make = SPECS[RAGGED[name][0]], RAGGED[name][1]
    inputs = make()
    together = spec.op(**inputs)
    limit = "k" if "k" in inputs else "keep"
    for segment, (exists, count) in enumerate(zip(VALID, COUNTS.tolist(), strict=True)):
        real = exists.nonzero().squeeze(1)
        number = min(count, len(real), KEEP)
        alone = {limit: number, **{n: inputs[n] for n in ("step", "objective") if n in inputs}}
        for part in ("scores", "weight"):
            if part in inputs:
                alone[part] = inputs[part][segment, real][None]
        if "gram" in inputs:
            alone["gram"] = inputs["gram"][segment][real][:, real][None]
        expected = [*real[spec.op(**alone)[0]].tolist(), *[-1] * (KEEP - number)]
        assert together[segment].tolist() == expected


@INTERPRETED
def test_importance_is_the_same_alone_and_padded() -> None:
    """To the bit in the kernels, whose additions follow one order however much padding follows."""
    length, longest = 130, 300
    fused = features("random", (2, 1 + longest, 3 * 2 * 24), torch.bfloat16, "cpu")
    valid = torch.arange(longest) < torch.tensor([[longest], [length]])
    for name, first in (("cls_importance", 0), ("column_importance", 1)):
        query, key, _ = fused[:, first:].chunk(3, dim=-1)
        end = length + 1 - first
        together = SPECS[name].launcher(query, key, 2, 0.2, valid=valid)
        alone = SPECS[name].launcher(query[1:, :end], key[1:, :end], 2, 0.2)
        assert torch.equal(together[1:, :length], alone), name
        assert not together[1, length:].any()


@INTERPRETED
def test_256_segments_of_unequal_length() -> None:
    generator = torch.Generator().manual_seed(7)
    lengths = torch.randint(0, 10, (256, 1), generator=generator)
    counts = torch.randint(0, 6, (256,), generator=generator)
    valid = torch.arange(9) < lengths
    scores = torch.randn(256, 9, generator=generator)
    found = SPECS["top_k_sorted"].launcher(scores, 4, valid, counts)
    assert torch.equal(found, SPECS["top_k_sorted"].reference(scores, 4, valid, counts))
    number = kept_of(4, 256, valid, counts)
    assert torch.equal((found >= 0).sum(dim=1), number)
    diverse = dedup(cosine_gram(scores.unsqueeze(2), valid=valid), 4, 2, valid, counts)
    assert torch.equal((diverse >= 0).sum(dim=1), number)
    assert valid.gather(1, diverse.clamp_min(0))[diverse >= 0].all()


def test_where_the_last_real_row_ends() -> None:
    assert end_of(VALID).tolist() == [37, 0, 1, 40, 4]
    assert end_of(VALID[:, :0]).tolist() == [0] * 5
