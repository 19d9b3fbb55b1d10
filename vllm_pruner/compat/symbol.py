"""One name of vLLM that vtprune relies on, and when it is looked up; `symbols` has the table."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["MODELS", "OLDEST", "Process", "Symbol", "symbols_of"]

OLDEST = (0, 31)
"""The oldest vLLM minor release that vtprune runs on."""


class Process(StrEnum):
    """Where and when names are looked up: where their modules are imported anyway."""

    EVERY = "every process, when the plugin is registered"
    SERVER = "the API server, before a pruned model is configured"
    TRACING = "the API server, if it exports spans"
    ENGINE = "a worker, before the model is built"


class Symbol(NamedTuple):
    """One name of vLLM."""

    module: str
    """As it is imported here, which may not be where it is defined."""

    name: str
    """`function`, `Class`, `Class.method` or `Class.field`."""

    user: str
    """A package or module of ours."""

    process: Process

    first: tuple[int, int] = OLDEST
    """The oldest supported vLLM that has it."""

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"


def symbols_of(
    process: Process, user: str, module: str, names: str, first: tuple[int, int] = OLDEST
) -> list[Symbol]:
    """Return the symbols of a module: `names` are parted by blanks."""
    return [Symbol(module, name, user, process, first) for name in names.split()]


MODELS = "vllm.model_executor.models"
