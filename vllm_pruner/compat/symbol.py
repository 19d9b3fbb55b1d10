"""One vLLM name that vtprune relies on, and when it is looked up; `symbols` has the table."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = [
    "MODELS",
    "MODEL_PACKAGES",
    "MODEL_PROCESSORS",
    "OLDEST",
    "Process",
    "Symbol",
    "symbols_of",
]

OLDEST = (0, 31)
"""The oldest vLLM minor release that vtprune runs on."""


class Process(StrEnum):
    """In which process and when names are looked up: where their modules are imported anyway."""

    EVERY = "every process, when the plugin is registered"
    SERVER = "the API server, before a pruned model is configured"
    TRACING = "the API server, if it exports spans"
    ENGINE = "a worker, before the model is built"


class Symbol(NamedTuple):
    """One name of vLLM."""

    module: str
    """The module from which it is imported, which need not define it."""

    name: str
    """`function`, `Class`, `Class.method` or `Class.field`."""

    user: str
    """Our package or module that uses it."""

    process: Process

    first: tuple[int, int] = OLDEST
    """The oldest supported vLLM that has it."""

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"


def symbols_of(
    process: Process, user: str, module: str, names: str, first: tuple[int, int] = OLDEST
) -> list[Symbol]:
    """Return the symbols of a module; `names` are separated by spaces."""
    return [Symbol(module, name, user, process, first) for name in names.split()]


MODELS = "vllm.model_executor.models"
"""Where vLLM has a module for each model."""

MODEL_PACKAGES = "vllm.models"
"""Where it has a package for each of some newer ones, with a class for each kind of GPU."""

MODEL_PROCESSORS = "vllm.transformers_utils.processors"
"""Where it has a module for the processor of each model whose authors' it does not take. One of
them imports numba, beside which vLLM's engine does not start in a caller's process on a CPU."""
