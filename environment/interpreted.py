"""Triton's interpreter in place of its compiler, where there is no GPU."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

__all__ = ["interpreted_kernels", "interpreted_language"]


@contextmanager
def interpreted_language() -> Iterator[None]:
    """Give `triton.language` the interpreter's meaning here, and its own again at the end.

    The interpreter does so at every launch and at every call of one jitted function by another: a
    third of a test's time. What calls patch it never takes back, after which nothing compiles.
    """
    from triton import language
    from triton.runtime import interpreter

    users = SimpleNamespace(__globals__={"tl": language, "core": language.core})
    scope = interpreter._patch_lang(users)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang", lambda fn: interpreter._LangPatchScope())
        _leave_out_what_has_no_effect(patch)
        yield
    scope.restore()


def _leave_out_what_has_no_effect(patch: pytest.MonkeyPatch) -> None:
    """Half of a test's time: every addition of integers is done again in 64 bits, for a comparison
    that is asserted in debug mode alone, and every look at a type makes a table of all."""
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder
    assert not builder.options.debug
    patch.setattr(builder, "options", replace(builder.options, sanitize_overflow=False))
    known: dict[str, Any] = {}
    find = interpreter._get_np_dtype

    def numpy_dtype(of: Any) -> Any:
        name = str(of.scalar)
        if name not in known:
            known[name] = find(of)
        return known[name]

    patch.setattr(interpreter, "_get_np_dtype", numpy_dtype)


@contextmanager
def interpreted_kernels(kernels: Collection[tuple[ModuleType, str]]) -> Iterator[None]:
    """Run kernels of vLLM, which takes Triton for absent without a GPU and leaves plain functions.

    Args:
        kernels: the module of each and its name there.
    """
    import triton
    from triton.runtime.interpreter import InterpretedFunction

    with interpreted_language(), pytest.MonkeyPatch.context() as patch:
        for module, name in kernels:
            patch.setattr(module, name, InterpretedFunction(getattr(module, name)))
            patch.setattr(module, "triton", triton)
            patch.setattr(module, "tl", triton.language)
        yield
