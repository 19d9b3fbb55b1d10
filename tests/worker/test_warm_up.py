"""After the warm-up no request makes Triton compile: for each built-in method, at every number of
tokens, of kept ones and of images, on a GPU that is not there.

Tensors are on the device "meta", which has no values: a method that asked the host for one, or left
a tensor on the host, would raise.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from absent_gpu import absent_gpu
from vtprune_kernels import cls_importance, column_importance, gather_rows
from vtprune_kernels._triton import size_class
from vtprune_kernels.spec import all_specs

from vllm_pruner import methods
from vllm_pruner.methods.base import TOWER, Need, VisualTokens
from vllm_pruner.methods.ragged import Ragged
from vllm_pruner.tower import FEATURES
from vllm_pruner.worker.columns import columns_of
from vllm_pruner.worker.warm_up import SMALLEST, sizes_up_to, warm_up

pytestmark = pytest.mark.slow

META, DTYPE = torch.device("meta"), torch.bfloat16
WIDTH, DECODER, HEADS = 1024, 4096, 16
NAMES = [name for name in methods.built_in() if methods.get(name).shrink is None]
Keys = set[tuple[str, str]]


class _Tower:
    """The shapes of LLaVA-1.5's, and the kernels that read its attention."""

    own_width = None

    def __init__(self) -> None:
        self.module = torch.nn.Linear(1, 1, device=META, dtype=DTYPE)

    def columns(self, needs: frozenset[Need]) -> dict[str, tuple[int, torch.dtype]]:
        return columns_of(self.module, WIDTH, WIDTH // HEADS, needs)

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.new_empty(*rows.shape[:-1], DECODER)

    def encode(self, images: Any, needs: frozenset[Need]) -> Any:
        query, key, _ = torch.empty(len(images), 577, 3 * WIDTH, device=META, dtype=DTYPE).chunk(
            3, dim=-1
        )
        for need in needs:
            score = cls_importance if need == Need.IMPORTANCE else column_importance
            if need != Need.KEYS:
                score(query, key, HEADS, 0.125)
        return {}


@pytest.fixture
def compiled() -> Iterator[Keys]:
    """What Triton would have compiled: kernels and the keys that it keeps them under."""
    from triton.runtime.jit import JITFunction

    found: Keys = set()
    run = JITFunction.run

    def launch(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        run(self, *args, grid=grid, warmup=True, **kwargs)

    def note(self: Any, key: str, *rest: Any) -> None:
        found.add((self.__name__, key))

    with absent_gpu("sm_90", device=-2) as patch:
        patch.setattr(JITFunction, "run", launch)
        patch.setattr(
            JITFunction, "_do_compile", lambda self, key, *_: found.add((self.__name__, key))
        )
        for spec in all_specs():
            module = sys.modules[f"vtprune_kernels.{spec.name}"]
            patch.setattr(module, "use_triton", lambda *tensors: True)
            patch.setattr(module, f"_{spec.name}_op", spec.launcher)
        yield found


def _asked(images: int, size: int, words: int) -> VisualTokens:
    """A group of a request."""
    columns = _Tower().columns(TOWER)
    made: dict[str, Any] = {
        name: torch.empty((images, size, width)[: 3 if width else 2], dtype=dtype, device=META)
        for name, (width, dtype) in columns.items()
    }
    projected = made[FEATURES].new_empty(images, size, DECODER)
    text = [projected.new_empty(words, DECODER)] * images
    return VisualTokens(**made, projected=projected, text=text, grid=(1, size))


def _request(name: str, images: int, size: int, count: int, words: int = 7) -> None:
    method = methods.get(name)
    tokens = _asked(images, size, words)
    kept = method.choose(tokens, count, method.options())
    assert kept.index.shape == (images, count)
    gather_rows([tokens.features], kept.index)
    if images * size % 16 == 0:  # crops are arranged: a tower's crop has so many patches
        names = (FEATURES, *(method.needs & TOWER))
        gather_rows([getattr(tokens, name) for name in names], kept.index)


def _unequal_request(name: str, images: int, size: int, count: int) -> None:
    """Images of one class of sizes, selected in one call (`worker.together`)."""
    method = methods.get(name)
    if not method.ragged:
        return
    tokens = _asked(images, size, 7)
    lengths = [size, size - size // 3, *[size - 1] * (images - 2)]
    keeps = [count, 1, *[max(1, count // 2)] * (images - 2)]
    ragged = Ragged.of(lengths, keeps, tokens.features.device)
    tokens = replace(tokens, grid=None, ragged=ragged)
    assert method.choose(tokens, count, method.options()).index.shape == (images, count)


_WARM: dict[tuple[int, bool], Keys] = {}


def _warm(compiled: Keys, tokens: int, of_one_size: bool) -> Keys:
    """What the warm-up compiles, of all methods, whichever is asked then: it is launched once."""
    if (tokens, of_one_size) not in _WARM:
        images: Any = [SimpleNamespace()]
        warm_up(_Tower(), images, NAMES, tokens, of_one_size=of_one_size)  # type: ignore[arg-type]
        assert compiled, "the warm-up compiles"
        _WARM[tokens, of_one_size] = set(compiled)
    compiled |= _WARM[tokens, of_one_size]
    return set(compiled)


@pytest.mark.parametrize("name", NAMES)
def test_no_number_of_kept_tokens_or_images_compiles(name: str, compiled: Keys) -> None:
    warm = _warm(compiled, 576, of_one_size=True)
    for images in (1, 2, 5, 16):
        for count in (*range(1, 20), 32, 63, 64, 65, 128, 192, 287, 288, 289, 400, 574, 575):
            _request(name, images, 576, count, words=images)
    assert compiled == warm


@pytest.mark.parametrize("name", NAMES)
def test_no_number_of_tokens_compiles(name: str, compiled: Keys) -> None:
    warm = _warm(compiled, 2880, of_one_size=False)
    for size in (64, 65, 100, 144, 256, 345, 576, 729, 1024, 1025, 1728, 2047, 2880):
        for count in (1, 8, size // 9, size // 2, size - 1):
            _request(name, 3, size, count)
            _unequal_request(name, 3, size, count)
    assert compiled == warm


@pytest.mark.parametrize("name", NAMES)
def test_no_number_of_unequal_images_compiles(name: str, compiled: Keys) -> None:
    """Their budgets are the second row of what is sent: where it begins depends on the number."""
    warm = _warm(compiled, 2880, of_one_size=False)
    for images in range(2, 9):
        _unequal_request(name, images, 576, 64)
    assert compiled == warm


def test_without_the_warm_up_requests_compile(compiled: Keys) -> None:
    _request("vispruner", 1, 576, 64)
    assert {"_dedup_kernel", "_nearest_kernel", "_gram_kernel"} <= {name for name, _ in compiled}
    warm = set(compiled)
    _request("vispruner", 1, 2880, 64)
    assert compiled > warm, "another class"


@pytest.mark.parametrize("most", [1, 64, 65, 576, 1024, 2880, 16384])
def test_every_class_up_to_the_largest_is_launched(most: int) -> None:
    sizes = sizes_up_to(most)
    assert max(sizes) == most
    wanted = {size_class(size) for size in range(1, most + 1)}
    assert {size_class(size) for size in sizes} == wanted
    assert len(sizes) == len(wanted)
    assert min(sizes) <= SMALLEST


def test_a_method_that_asks_the_host_is_seen(compiled: Keys) -> None:
    tokens = _asked(1, 64, 1)
    with pytest.raises(RuntimeError):
        tokens.importance.sum().item()  # type: ignore[union-attr]
    with pytest.raises(RuntimeError):
        replace(tokens, features=torch.ones(1, 64, WIDTH)).features + tokens.features
