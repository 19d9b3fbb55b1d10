"""Which vLLM releases vtprune runs on, and whether this one has every name that it relies on.

The tests run on 0.31, 0.32 and, on 0.32's compiled operators, 0.33, which has no build for CPUs. A
newer release is not refused for its number: if it has every name it starts, with a warning, once a
test image has passed through the real processor and model (`vtprune_server.canary`).
"""

from __future__ import annotations

import inspect
import sys
from functools import reduce
from importlib import import_module
from typing import Any

from packaging.version import InvalidVersion, Version

from vllm_pruner.compat.symbols import (
    MODEL_PACKAGES,
    MODEL_PROCESSORS,
    MODELS,
    OLDEST,
    SYMBOLS,
    Process,
    Symbol,
)

__all__ = [
    "NEWEST",
    "SUPPORTED",
    "at_least",
    "check",
    "check_version",
    "is_known",
    "not_as_read",
]

SUPPORTED = "0.32"
"""The vLLM minor release that this package is written against."""

NEWEST = (0, 33)
"""The newest release that was tested."""


def check_version() -> None:
    """Refuse a vLLM that is too old.

    pip enforces the same bound, but container images and forks may bypass pip.

    Raises:
        RuntimeError: this vLLM is older than `OLDEST`.
    """
    if _release() < OLDEST:
        raise RuntimeError(
            f"vtprune: vLLM is {_version()}; allowed: {_dotted(OLDEST)} or newer "
            "(uninstall vtprune or set VLLM_VTPRUNE_DISABLE=1 to run this vLLM without it)"
        )


def is_known() -> bool:
    """Whether vtprune was checked on this vLLM."""
    return OLDEST <= _release() <= NEWEST


def at_least(release: tuple[int, int]) -> bool:
    """Whether this vLLM is of minor release `release` or newer."""
    return _release() >= release


def _version() -> str:
    import vllm

    return str(vllm.__version__)


def _release() -> tuple[int, int]:
    """Return major and minor version; for a source build without a version, one newer than any."""
    try:
        version = Version(_version())
    except InvalidVersion:
        return sys.maxsize, 0
    if version.is_devrelease and version.release < (0, 2):  # a checkout without tags
        return sys.maxsize, 0
    return version.major, version.minor


def _dotted(release: tuple[int, int]) -> str:
    return ".".join(map(str, release))


def check(process: Process) -> None:
    """Look up every name that `process` relies on. Names in the module of a model or of its
    processor are checked only if it has been imported, since other families' are not needed.

    Raises:
        RuntimeError: names are missing; the message is one sentence with all of them. Or a module
            of vLLM needs a package that is not installed.
    """
    release = _release()
    symbols = [each for each in SYMBOLS if each.process == process and each.first <= release]
    if missing := [str(symbol) for symbol in symbols if _needed(symbol) and not _exists(symbol)]:
        raise not_as_read(", ".join(dict.fromkeys(missing)))


def not_as_read(missing: str) -> RuntimeError:
    """Return the error for a vLLM that lacks names."""
    return RuntimeError(f"vtprune: this vLLM differs from {SUPPORTED}: it has no {missing}")


def _needed(symbol: Symbol) -> bool:
    of_models = tuple(f"{each}." for each in (MODELS, MODEL_PACKAGES, MODEL_PROCESSORS))
    return not symbol.module.startswith(of_models) or symbol.module in sys.modules


def _exists(symbol: Symbol) -> bool:
    *owners, name = symbol.name.split(".")
    try:
        owner: Any = reduce(getattr, owners, import_module(symbol.module))
        bases = inspect.getmro(owner) if inspect.isclass(owner) else ()
        return _has(owner, name) or any(name in _fields(base) for base in bases)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "vllm":
            return False
        raise RuntimeError(
            f"vtprune: vLLM's {symbol.module} cannot be imported, because {error.name} is missing"
        ) from error
    except (ImportError, AttributeError):
        return False


def _has(owner: Any, name: str) -> bool:
    """Return whether a name is there, other than as every class has it (`__new__`)."""
    if not hasattr(owner, name):
        return False
    return name not in vars(object) or getattr(owner, name) is not getattr(object, name)


def _fields(owner: type) -> set[str]:
    """Return the names of instance attributes: annotated on the class, or used in `__init__`."""
    init = inspect.unwrap(vars(owner).get("__init__", object.__init__))
    used = init.__code__.co_names if inspect.isfunction(init) else ()
    return {*inspect.get_annotations(owner), *used}
