"""Our functions on workers, which `collective_rpc` calls by name.

Replaces: nothing; adds methods to `WorkerBase`.
Why: the API server has no other way to a worker's model that works with every executor.
Relies on: `WorkerBase.get_model`; `collective_rpc` looking methods up on the worker.
vLLM versions: 0.31 to 0.33.
Goes when: a plugin can register such methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm.v1.worker.worker_base import WorkerBase

__all__ = ["add_worker_methods"]


def add_worker_methods(methods: dict[str, Callable[..., Any]]) -> None:
    """Add functions by name; each gets the worker's model as its first argument. Safe to call
    again."""
    from vllm.v1.worker.worker_base import WorkerBase

    for name, function in methods.items():
        setattr(WorkerBase, name, _on_model(function))


def _on_model(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: WorkerBase, *args: Any) -> Any:
        return function(self.get_model(), *args)

    return method
