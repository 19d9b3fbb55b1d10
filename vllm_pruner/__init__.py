"""vtprune: visual-token pruning for vLLM. Importing this loads neither torch nor vLLM."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm_pruner.offline import prune, select, select_video

__version__ = version("vtprune")
__all__ = ["__version__", "prune", "select", "select_video"]


def __getattr__(name: str) -> Any:
    """Load the offline functions, and torch with them, when one is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vllm_pruner import offline

    return getattr(offline, name)


def __dir__() -> list[str]:
    return __all__
