"""What a worker does with the faults of foreign methods, without a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from vllm_pruner import methods
from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.methods.base import Kept, Method, VisualTokens
from vllm_pruner.methods.faults import MethodFault
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.worker import guard
from vllm_pruner.worker.guard import Guard
from vllm_pruner.worker.unpruned import counted_grid

LAYOUT = CropLayout(16, 4)
STAND_IN = [0, 4, 8, 12]
Select = Callable[[VisualTokens, int, Any], Any]


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Let `uniform` be another package's, and another method."""
    monkeypatch.setattr(methods, "package_of", lambda name: "elsewhere")

    def become(select: Select, **fields: Any) -> None:
        method = replace(Method("uniform", select), **fields)
        monkeypatch.setattr(methods, "get", lambda name: method)

    yield become


def config() -> PruneConfig:
    """Settings that have not looked their method up yet."""
    return PruneConfig(method="uniform", tokens=4)


def plans(count: int, first: int = 0) -> list[ImagePlan]:
    return [ImagePlan(config(), f"image {first + place}", keep=4) for place in range(count)]


def choose(guard: Guard, images: list[ImagePlan]) -> Kept:
    features = torch.arange(len(images)).view(-1, 1, 1).expand(-1, 16, 3).float()
    return guard.choose(VisualTokens(features), config(), LAYOUT, 4, images)


def expecting() -> Guard:
    made = Guard()
    made.expect_questions()
    return made


def last(tokens: VisualTokens, keep: int, _: Any) -> torch.Tensor:
    images, total, _ = tokens.features.shape
    return torch.arange(total - keep, total).repeat(images, 1)


def unless_second(tokens: VisualTokens, keep: int, options: Any) -> Any:
    """Raise for the second image."""
    if (tokens.features == 1).any():
        raise ValueError("the second")
    return last(tokens, keep, options)


def test_a_fault_is_raised_where_nobody_asks(become: Callable[..., None]) -> None:
    become(unless_second)
    with pytest.raises(MethodFault, match="raised ValueError: the second in select"):
        choose(Guard(), plans(3))


def test_positions_follow_from_the_count_in_the_plan(become: Callable[..., None]) -> None:
    """A method that fails when it is asked again would end the engine."""

    def count(tokens: int, budget: Any) -> int:
        raise ValueError("asked again")

    become(last, keep_count=count)
    plan = ImagePlan(PruneConfig(method="uniform", rate=0.5, positions="compact"), "image", keep=6)
    assert counted_grid(GridLayout(4, 6), plan) == GridLayout(2, 3)


def test_the_image_at_fault_has_a_stand_in_and_the_others_their_own(
    become: Callable[..., None],
) -> None:
    become(unless_second)
    made, images = expecting(), plans(3)
    own = [12, 13, 14, 15]
    assert choose(made, images).index.tolist() == [own, STAND_IN, own]
    found = made.faults_of([plan.identity for plan in images])
    assert found == [
        ("uniform", "method 'uniform' of package elsewhere raised ValueError: the second in select")
    ]
    # Asked again, about the same image or another, what was said stays said.
    become(last)
    choose(made, images)
    assert made.faults_of([images[1].identity]) == found
    assert made.faults_of([images[0].identity, "an identity of any other kind"]) == []


def test_rows_stand_in_for_rows(become: Callable[..., None]) -> None:
    def merge(tokens: VisualTokens, keep: int, options: Any) -> Kept:
        return Kept(unless_second(tokens, keep, options), tokens.features[:, :keep] + 10)

    become(merge, merges=True)
    rows = choose(expecting(), plans(3)).rows
    assert rows is not None
    assert rows[:, :, 0].tolist() == [[10.0] * 4, [1.0] * 4, [12.0] * 4]

    def poison(tokens: VisualTokens, keep: int, options: Any) -> Kept:
        rows = tokens.features[:, :keep] + 10
        rows[1, 2, 0] = float("nan")
        return Kept(last(tokens, keep, options), rows)

    become(poison, merges=True)
    made, images = expecting(), plans(3)
    rows = choose(made, images).rows
    assert rows is not None
    assert rows[:, :, 0].tolist() == [[10.0] * 4, [1.0] * 4, [12.0] * 4]
    assert len(made.faults_of([plan.identity for plan in images])) == 1


def test_what_is_not_finite_never_reaches_the_decoder(become: Callable[..., None]) -> None:
    become(last)
    made, images = expecting(), plans(2)
    rows = torch.ones(2, 4, 3)
    assert made.finite(rows, images) is rows
    for value in (float("inf"), float("-inf"), float("nan"), -3e38):
        rows[1, 3, 2] = value
        assert made.finite(rows, images).tolist() == [torch.ones(4, 3).tolist(), [[0.0] * 3] * 4]
    assert made.faults_of([images[0].identity]) == []
    assert len(made.faults_of([images[1].identity])) == 1


def test_a_method_with_too_many_faults_is_not_called_again(
    become: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def never(tokens: VisualTokens, keep: int, _: Any) -> None:
        calls.append(len(tokens.features))

    monkeypatch.setattr(guard, "_MOST", 5)
    become(never)
    made = expecting()
    choose(made, plans(4))
    choose(made, plans(4, first=4))
    assert calls == [4, 4]
    assert choose(made, plans(2, first=8)).index.tolist() == [STAND_IN] * 2
    assert calls == [4, 4]
    (said,) = {said for _, said in made.faults_of([plan.identity for plan in plans(12)])}
    assert said.endswith("is not called again after the faults of 5 images")
    assert not made._faults, "faults are kept that nobody needs"
    with made.apart() as found:
        choose(made, plans(2, first=20))
    assert found == [("uniform", said)]


def test_faults_that_a_person_looks_at_are_not_kept(become: Callable[..., None]) -> None:
    become(unless_second)
    made, images = Guard(), plans(3)
    with made.apart() as found:
        choose(made, images)
    assert len(found) == 1
    made.expect_questions()
    assert made.faults_of([plan.identity for plan in images]) == []
