"""Load the endpoint plugin without an environment variable.

Replaces: `vllm.plugins.load_endpoint_plugins`.
Why: vLLM loads endpoint plugins only if `VLLM_PLUGINS` names them, and that variable disables every
plugin of any kind that it does not name.
Relies on: the function being looked up in `vllm.plugins` when the server builds its routes.
vLLM versions: 0.31 to 0.33.
Goes when: endpoint plugins have a switch of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from vllm_pruner.compat.patching import Patch, apply

__all__ = ["enable_endpoints"]


def enable_endpoints(name: str) -> None:
    """Load the endpoint plugin `name` unless `VLLM_PLUGINS` is set, which then decides. Safe to
    call again.

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
