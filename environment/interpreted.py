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
        _make_types_once(patch)
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


def _make_types_once(patch: pytest.MonkeyPatch) -> None:
    """A third of the rest: every result has a type and a shape that are checked, named and wrapped
    number by number, and every two of one shape are brought to one shape."""
    from triton.language import core, semantic

    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    shapes: dict[tuple[Any, ...], tuple[Any, Any]] = {}
    first_type, first_tensor = core.block_type.__init__, core.tensor.__init__
    meet = semantic.TritonSemantic.broadcast_impl_value

    def block_type(self: Any, element_ty: Any, shape: Any) -> None:
        key = (id(element_ty), *(getattr(size, "value", size) for size in shape))
        if key not in kept:
            first_type(self, element_ty, shape)
            kept[key] = vars(self).copy()
        vars(self).update(kept[key])

    def tensor(self: Any, handle: Any, type: Any) -> None:
        key = tuple(type.shape.values) if type.is_block() else ()
        if key not in shapes:
            first_tensor(self, handle, type)
            shapes[key] = (self.shape, self.numel)
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.shape, self.numel = shapes[key]

    def broadcast_impl_value(self: Any, lhs: Any, rhs: Any) -> Any:
        if lhs.type.is_block() and rhs.type.is_block() and lhs.shape is rhs.shape:
            return lhs, rhs
        return meet(self, lhs, rhs)

    patch.setattr(core.block_type, "__init__", block_type)
    patch.setattr(core.tensor, "__init__", tensor)
    patch.setattr(semantic.TritonSemantic, "broadcast_impl_value", broadcast_impl_value)


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
