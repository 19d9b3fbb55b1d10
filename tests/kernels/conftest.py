"""Run kernels where there is no GPU, and show what they leave unwritten."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from interpreted import interpreted_language

UNWRITTEN = -0x5A5A5A5A5A5A5A5B
"""Fills integer results before a kernel runs: no index, in no width."""


@pytest.fixture(scope="module")
def interpreted() -> Iterator[None]:
    """Replace each jitted function of Triton's library and of `vtprune_kernels` by its twin in
    Triton's interpreter.

    `TRITON_INTERPRET=1` only works when it is set before Triton is imported, since `@triton.jit`
    reads it once. A test session imports Triton through other packages long before, and must not
    hand the variable to the servers that other tests start. With the variable set, the functions
    are such twins already and nothing is replaced.
    """
    # Imported at the first launch otherwise, when it would miss the originals, or keep the twins.
    import triton.experimental.gluon  # noqa: F401
    import vtprune_kernels
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    for module in pkgutil.iter_modules(vtprune_kernels.__path__, "vtprune_kernels."):
        importlib.import_module(module.name)
    twins: dict[int, Any] = {}
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith(("vtprune_kernels", "triton.language")):
            for name, value in list(vars(module).items()):
                if isinstance(value, JITFunction):
                    twin = twins.setdefault(id(value), InterpretedFunction(value.fn))
                    replaced.append((vars(module), name, value))
                    vars(module)[name] = twin
    with interpreted_language():
        yield
    for namespace, name, value in replaced:
        namespace[name] = value


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer and larger tiles than a GPU could hold: the interpreter pays for each operation, hardly
    for its size. Rows of 577 and 1000 still take several."""
    from vtprune_kernels import (
        column_importance_triton,
        cosine_gram_triton,
        greedy_cover_triton,
        greedy_exact_triton,
        greedy_select_triton,
        nearest_rows_triton,
        row_max_cosine_triton,
    )

    for module in (cosine_gram_triton, row_max_cosine_triton):
        monkeypatch.setattr(module, "tile_of", lambda device: (256, 4))
    monkeypatch.setattr(cosine_gram_triton, "_LIMB_ROWS", 256)
    for name in ("_HELD", "_STREAMED", "_FLOAT32_HELD", "_FLOAT32_STREAMED"):
        monkeypatch.setattr(column_importance_triton, name, 256)
    monkeypatch.setattr(nearest_rows_triton, "_ROWS", 512)
    monkeypatch.setattr(greedy_select_triton, "_TILE_ELEMENTS", 1 << 18)
    for module in (greedy_cover_triton, greedy_exact_triton):
        monkeypatch.setattr(module, "_HEIGHT", 512)


@pytest.fixture
def rows_share_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of the first launches of `dedup` and of a cover have 16 rows, not one, and 32, not
    eight. Batches of more still have several, and a last one that is not full. In the tiles of a
    GPU these launches are most of what such a batch takes here."""
    from vtprune_kernels import greedy_cover_triton, nearest_rows_triton

    monkeypatch.setattr(nearest_rows_triton, "_ROWS", 16)
    monkeypatch.setattr(greedy_cover_triton, "_HEIGHT", 32)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill what `vtprune_kernels` allocates without writing to it: NaN, or no index at all."""
    for owner, name in (
        (torch, "empty"),
        (torch, "empty_like"),
        (torch.Tensor, "new_empty"),
    ):
        monkeypatch.setattr(owner, name, _poisoning(getattr(owner, name)))


def _poisoning(allocate: Any) -> Any:
    def poisoning(*args: Any, **kwargs: Any) -> torch.Tensor:
        tensor: torch.Tensor = allocate(*args, **kwargs)
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if not caller.startswith("vtprune_kernels"):
            return tensor
        if tensor.is_floating_point():
            return tensor.fill_(float("nan"))
        bits = 8 * tensor.element_size()
        return tensor.fill_(UNWRITTEN >> (64 - bits))

    return poisoning
