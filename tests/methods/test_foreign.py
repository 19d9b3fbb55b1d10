"""What a method of another package may do in a call, and what becomes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from vllm_pruner.methods import foreign
from vllm_pruner.methods.base import Method
from vllm_pruner.methods.budget import Budget
from vllm_pruner.methods.faults import MethodFault

HALF = Budget(rate=0.5)
Forget = Callable[[], None]


@pytest.fixture(autouse=True)
def nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(foreign.methods, "package_of", lambda name: "elsewhere")
    yield
    foreign._hanging.clear()


def counting(answer: Callable[..., Any]) -> Method:
    return Method("own", lambda *_: None, keep_count=answer)  # type: ignore[arg-type,return-value]


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("not even that")


def raising(error: BaseException) -> Callable[..., Any]:
    def answer(*_: object) -> Any:
        raise error

    return answer


@pytest.mark.parametrize(
    "answer, said",
    [
        (raising(ZeroDivisionError("by zero")), "raised ZeroDivisionError: by zero in keep_count"),
        (raising(KeyError()), "raised KeyError: in keep_count"),
        (raising(SystemExit(3)), "raised SystemExit: 3 in keep_count"),
        (raising(Unprintable()), "raised Unprintable in keep_count"),
        (lambda *_: 0, "returned 0 from keep_count; allowed: 1 to 576"),
        (lambda *_: -1, "returned -1 from keep_count; allowed: 1 to 576"),
        (lambda *_: 577, "returned 577 from keep_count; allowed: 1 to 576"),
        (lambda *_: 1_000_000, "returned 1000000 from keep_count; allowed: 1 to 576"),
        (lambda *_: 28.0, "returned 28.0 from keep_count; allowed: 1 to 576"),
        (lambda *_: True, "returned True from keep_count; allowed: 1 to 576"),
        (lambda *_: None, "returned NoneType from keep_count; allowed: 1 to 576"),
    ],
)
def test_a_count_that_cannot_be_is_a_fault(answer: Callable[..., Any], said: str) -> None:
    with pytest.raises(MethodFault) as raised:
        foreign.keep_count(counting(answer), 576, HALF)
    assert str(raised.value) == f"method 'own' of package elsewhere {said}"


def test_a_count_that_changes_is_asked_once() -> None:
    counts = iter([288, 287])
    method = counting(lambda *_: next(counts))
    assert [foreign.keep_count(method, 576, HALF) for _ in range(2)] == [288, 288]


@pytest.mark.parametrize("grid", [(2, 3), (0, 4), [2, 2], (2, 2, 1), (2.0, 2.0), None], ids=str)
def test_a_grid_of_other_patches_is_a_fault(grid: Any) -> None:
    method = Method("own", lambda *_: None, shrink=lambda _: grid)  # type: ignore[arg-type,return-value]
    with pytest.raises(MethodFault, match="from shrink; allowed: rows and columns of 4 patches"):
        foreign.shrink(method, 4)


def test_a_call_that_does_not_return_is_left_behind_and_not_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_VTPRUNE_METHOD_SECONDS", "0.2")
    calls = []

    def forever(*_: object) -> int:
        calls.append(threading.current_thread())
        while True:
            pass

    for said in ("did not return from keep_count in 0.2 s", "is not called again after keep_count"):
        with pytest.raises(MethodFault, match=said):
            foreign.keep_count(counting(forever), 576, HALF)
    (thread,) = calls
    thread.join(10)
    assert not thread.is_alive(), "a loop that is left behind goes on taking the processor"


def test_a_long_fault_is_cut() -> None:
    with pytest.raises(MethodFault) as raised:
        foreign.call("own", "select", raising(ValueError("line\n" * 1000)))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


def test_a_call_in_time_returns_what_the_function_does() -> None:
    def later() -> str:
        time.sleep(0.05)
        return "kept"

    assert foreign.call("own", "select", later) == "kept"
