"""The endpoint plugin, loaded without an environment variable.

Replaces: `vllm.plugins.load_endpoint_plugins`.
Why: vLLM loads endpoint plugins only if `VLLM_PLUGINS` names them, which would switch off every
other plugin of every kind that is not named too.
Relies on: the function being looked up in `vllm.plugins` when the server's routes are made.
vLLM versions: 0.32.
Goes when: endpoint plugins have a switch of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from vllm_pruner.compat.patching import Patch, apply

__all__ = ["enable_endpoints"]


def enable_endpoints(name: str) -> None:
    """Load the endpoint plugin `name` as if it stood in `VLLM_PLUGINS`. A server whose
    `VLLM_PLUGINS` is set loads what that says. Safe to call again.

    Raises:
        RuntimeError: this vLLM lacks the function.
    """
    from vllm import envs, plugins

    def with_ours(load: Callable[..., Any]) -> Callable[..., Any]:
        def load_endpoint_plugins(*args: Any, **kwargs: Any) -> Any:
            if envs.VLLM_PLUGINS is not None:
                return load(*args, **kwargs)
            entries = entry_points(group=plugins.ENDPOINT_PLUGINS_GROUP, name=name)
            return [entry.load()() for entry in entries]

        return load_endpoint_plugins

    apply(Patch(plugins, "load_endpoint_plugins", with_ours))
