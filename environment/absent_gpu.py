"""A GPU that is not there: launches specialise and compile for it, and stop short of running."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from triton.backends.compiler import GPUTarget

__all__ = ["absent_gpu", "compiled_for"]


class _Driver:
    """Answers the questions that a launch asks before it compiles."""

    def __init__(self, target: GPUTarget, device: int) -> None:
        self._target, self._device = target, device

    def get_current_device(self) -> int:
        return self._device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        return self._target


@contextmanager
def absent_gpu(name: str, device: int) -> Iterator[pytest.MonkeyPatch]:
    """Make launches compile for a GPU.

    Args:
        name: as compilers name it, `sm_90` or `gfx942`.
        device: Triton keeps one cache of kernels for each number.
    """
    from triton.runtime.driver import driver
    from vtprune_kernels.gpu import Gpu

    target = _target(name)
    capability = target.arch if target.backend == "cuda" else 0
    gpu = Gpu(target.backend, capability, target.warp_size)
    active = driver._active
    with pytest.MonkeyPatch.context() as patch:
        for module_name, module in list(sys.modules.items()):
            if module_name.startswith("vtprune_kernels.") and hasattr(module, "gpu_of"):
                patch.setattr(module, "gpu_of", lambda device: gpu)
        driver.set_active(_Driver(target, device))
        try:
            yield patch
        finally:
            driver._active = active


@contextmanager
def compiled_for(name: str, device: int) -> Iterator[list[Any]]:
    """Collect the kernels that launches compile for a GPU, each once; nothing runs, results are
    garbage. Arguments are those of `absent_gpu`."""
    from triton.runtime.jit import JITFunction

    kernels: list[Any] = []
    run = JITFunction.run

    def warm_up(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        if all(kernel is not known for known in kernels):
            kernels.append(kernel)

    with absent_gpu(name, device) as patch:
        patch.setattr(JITFunction, "run", warm_up)
        yield kernels


def _target(name: str) -> GPUTarget:
    from triton.backends.compiler import GPUTarget

    if name.startswith("sm_"):
        return GPUTarget("cuda", int(name[3:]), 32)
    # Instinct GPUs, gfx90a to gfx950, run wavefronts of 64; Radeon's, gfx1100 and on, of 32.
    return GPUTarget("hip", name, 64 if name.startswith("gfx9") else 32)
