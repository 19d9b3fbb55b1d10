"""Another model in the same process finds vLLM as the first one left it: what is patched is patched
once, so that calls get no deeper and no slower with every model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import pytest
from pruned_model import pruned_model

from vllm_pruner.worker import coverage, explain, guard

WORKER_METHODS = {*coverage.WORKER_METHODS, *explain.WORKER_METHODS, *guard.WORKER_METHODS}


def _members(module: ModuleType) -> Iterator[tuple[Any, str, Any]]:
    """What a module or one of its classes has: the owner, the name and the value."""
    for name, value in list(vars(module).items()):
        yield module, name, value
        if isinstance(value, type) and value.__module__ == module.__name__:
            yield from ((value, each, found) for each, found in list(vars(value).items()))


def _functions() -> dict[tuple[Any, str], FunctionType]:
    """vLLM's functions and methods, by their owner and name, as they are now."""
    modules = [it for name, it in list(sys.modules.items()) if name.split(".")[0] == "vllm"]
    found = {}
    for owner, name, value in (member for module in modules for member in _members(module)):
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if isinstance(function, FunctionType):
            found[owner, name] = function
    return found


@pytest.mark.parametrize("checkpoint", ["demo", "demo-qwen2.5"])
def test_nothing_of_vllm_is_wrapped_again(checkpoint: str) -> None:
    """Our own methods on workers, which wrap nothing, are set anew."""
    with pruned_model(checkpoint, {}, dtype="float32"):
        before = _functions()
    with pruned_model(checkpoint, {}, dtype="float32"):
        after = _functions()
    ours = [value for value in after.values() if "vllm_pruner" in value.__code__.co_filename]
    assert len(ours) > len(WORKER_METHODS), "what is looked at has patches"
    changed = [place for place, value in before.items() if after.get(place) is not value]
    assert {name for _, name in changed} <= WORKER_METHODS
