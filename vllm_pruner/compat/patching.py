"""Replace attributes of vLLM by name: all or none, and each only once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from vllm_pruner.compat.versions import not_as_read

__all__ = ["Patch", "apply", "is_patched"]

_MARK = "_vtprune"


class Patch(NamedTuple):
    """One attribute to replace."""

    owner: Any
    """A class or a module."""

    name: str

    wrap: Callable[[Any], Callable[..., Any]]
    """Called with the original function; returns its replacement. Static and class methods are
    passed as plain functions, and their replacements become static and class methods again."""


def apply(*patches: Patch) -> None:
    """Patch vLLM. An attribute that is patched already is left alone.

    Raises:
        RuntimeError: an attribute does not exist; then nothing is patched.
    """
    originals = [_look_up(patch) for patch in patches]
    for patch, original in zip(patches, originals, strict=True):
        if is_patched(patch.owner, patch.name):
            continue
        function = getattr(original, "__func__", original)
        replacement: Any = functools.wraps(function)(patch.wrap(function))
        setattr(replacement, _MARK, True)
        if isinstance(original, staticmethod | classmethod):
            replacement = type(original)(replacement)
        setattr(patch.owner, patch.name, replacement)


def is_patched(owner: Any, name: str) -> bool:
    """Return whether an attribute is a replacement of ours."""
    return hasattr(getattr(owner, name), _MARK)


def _look_up(patch: Patch) -> Any:
    try:
        return inspect.getattr_static(patch.owner, patch.name)
    except AttributeError:
        raise not_as_read(f"{patch.name} of {patch.owner.__name__}") from None
