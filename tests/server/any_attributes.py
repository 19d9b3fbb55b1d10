"""vLLM's search for its kernels passes over what has no dictionary of attributes.

That of 0.31 to 0.33 looks, on a CPU, through everything that is imported by the time a worker
starts, and stumbles over a wrapper of llvmlite's that says it has such a dictionary. llvmlite comes
with numba, which prepares Kimi-K2.5's pictures: in the API server, whose process the tests fork for
the worker, as `LLM` in one process is both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm.triton_utils import dispatcher

__all__ = ["search_any_attributes"]


def _attributes(value: Any) -> Mapping[str, Any]:
    found: Any = vars(value)
    return found if isinstance(found, Mapping) else {}


def search_any_attributes() -> None:
    """Have it pass over them."""
    vars(dispatcher)["vars"] = _attributes
