"""Methods of a package whose author got the contract wrong, one way each; see
`test_faulty_methods.py`, which installs this file by entry points.

`good` is right, and so is what the others do to pictures that they do not look at.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import torch
from pydantic import model_validator

from vllm_pruner.methods.base import Kept, Method, Options, VisualTokens
from vllm_pruner.methods.budget import Budget, keep_count


def _good(tokens: VisualTokens, keep: int) -> torch.Tensor:
    images, total, _ = tokens.features.shape
    return torch.arange(total - keep, total, device=tokens.features.device).repeat(images, 1)


def _raises(tokens: VisualTokens, keep: int, _: Options) -> Any:
    raise ZeroDivisionError("the author never saw this picture")


def _exits(tokens: VisualTokens, keep: int, _: Options) -> Any:
    raise SystemExit(1)


def _odd(tokens: VisualTokens, keep: int, _: Options) -> Any:
    """Raise for about every second picture, alone or among others."""
    if (tokens.features[:, 0, 0].mul(10_000).long() % 2 == 1).any():
        raise ValueError("an odd picture")
    return _good(tokens, keep)


def _loops(tokens: VisualTokens, keep: int, _: Options) -> Any:
    while True:
        pass


def _sleeps(tokens: VisualTokens, keep: int, _: Options) -> Any:
    time.sleep(10_000)


def _merged(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
    def select(tokens: VisualTokens, keep: int, _: Options) -> Any:
        index = _good(tokens, keep)
        rows = tokens.features[:, -keep:].clone()
        return Kept(index, change(rows))

    return select


def _spoils(tokens: VisualTokens, keep: int, _: Options) -> Any:
    """Write into what it was given."""
    tokens.features.fill_(float("nan"))
    return _good(tokens, keep)


def _returning(change: Callable[[torch.Tensor, int], Any]) -> Callable[..., Any]:
    def select(tokens: VisualTokens, keep: int, _: Options) -> Any:
        return change(_good(tokens, keep), tokens.features.shape[1])

    return select


_NO_NUMBER = float("nan")
SELECT: dict[str, Callable[..., Any]] = {
    "raises": _raises,
    "exits": _exits,
    "none": lambda *_: None,
    "a-list": _returning(lambda index, _: index.tolist()),
    "one-less": _returning(lambda index, _: index[:, :-1]),
    "one-more": _returning(lambda index, total: torch.cat([index[:, :1] - 1, index], dim=1)),
    "nan": _returning(lambda index, _: torch.full_like(index, _NO_NUMBER, dtype=torch.float32)),
    "a-mask": _returning(
        lambda index, total: torch.zeros(len(index), total, dtype=torch.bool).scatter(
            1, index, True
        )
    ),
    "int32": _returning(lambda index, _: index.int()),
    "flat": _returning(lambda index, _: index[0]),
    "one-row": _returning(lambda index, _: torch.cat([index[:1], index[:0]])),
    "one-index": _returning(lambda index, _: index[:, :1].expand_as(index)),
    "falling": _returning(lambda index, _: index.flip(1)),
    "beyond": _returning(lambda index, _: index + 100_000),
    "negative": _returning(lambda index, _: index - 100_000),
    "spoils": _spoils,
    "loops": _loops,
    "sleeps": _sleeps,
}
MERGE: dict[str, Callable[..., Any]] = {
    "nan-rows": _merged(lambda rows: torch.full_like(rows, _NO_NUMBER)),
    "infinite-rows": _merged(lambda rows: torch.full_like(rows, float("inf"))),
    "huge-rows": _merged(lambda rows: torch.full_like(rows, 3e38)),
    "narrow-rows": _merged(lambda rows: rows[..., :-1]),
    "double-rows": _merged(torch.Tensor.double),
}


def _count_raises(tokens: int, _: Budget) -> Any:
    raise RuntimeError("no count today")


COUNT: dict[str, Callable[..., Any]] = {
    "count-raises": _count_raises,
    "count-none": lambda *_: None,
    "count-float": lambda *_: 28.5,
    "count-zero": lambda *_: 0,
    "count-million": lambda *_: 1_000_000,
}


class _Options(Options):
    """Options that cannot be read, given or not."""

    side: int = 0

    @model_validator(mode="after")
    def _divided(self) -> _Options:
        raise ZeroDivisionError(1 // 1)


def _right(tokens: VisualTokens, keep: int, _: Options) -> torch.Tensor:
    return _good(tokens, keep)


def _dice(tokens: int, budget: Budget) -> int:
    """A count that is another one whenever it is asked for."""
    return keep_count(tokens, budget) - random.SystemRandom().randrange(1, 20)


METHODS = {
    "good": Method("good", _right),
    "dice": Method("dice", _right, keep_count=_dice),
    "odd": Method("odd", _odd),
    **{name: Method(name, select) for name, select in SELECT.items()},
    **{name: Method(name, select, merges=True) for name, select in MERGE.items()},
    **{name: Method(name, _right, keep_count=count) for name, count in COUNT.items()},
    "options-raise": Method("options-raise", _right, _Options),
    "undeclared-rows": Method("undeclared-rows", _merged(torch.clone)),
    "grid-raises": Method("grid-raises", _right, shrink=lambda keep: (1, keep // 0)),
    "grid-other": Method("grid-other", _right, shrink=lambda keep: (keep, keep)),
}
globals().update({name.replace("-", "_").upper(): method for name, method in METHODS.items()})
