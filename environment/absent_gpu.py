"""A GPU that is not there: launches specialise and compile for it, and stop short of running."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class _Driver:
    """Answers the questions that a launch asks before it compiles."""

    def __init__(self, capability: int, device: int) -> None:
        self._capability, self._device = capability, device

    def get_current_device(self) -> int:
        return self._device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self._capability, 32)


@contextmanager
def absent_gpu(capability: int, device: int) -> Iterator[pytest.MonkeyPatch]:
    """Make launches compile for a compute capability.

    Args:
        capability: times ten, as in `sm_90`.
        device: Triton keeps one cache of kernels for each number.
    """
    from triton.runtime.driver import driver

    active = driver._active
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith("vtprune_kernels.") and hasattr(module, "capability"):
                patch.setattr(module, "capability", lambda device: capability)
        driver.set_active(_Driver(capability, device))
        try:
            yield patch
        finally:
            driver._active = active
