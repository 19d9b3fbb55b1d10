"""The environment variables of vtprune: the only place where the environment is read.

`VLLM_VTPRUNE_` is the prefix because vLLM copies variables that begin with `VLLM_` to Ray workers.
"""

from __future__ import annotations

import os

__all__ = ["disabled"]


def disabled() -> bool:
    """Whether the kill switch is on.

    `VLLM_VTPRUNE_DISABLE=1` serves the stock model although pruning was configured: the operator's
    way out that needs no change of any command line. Unset, empty and `0` mean off.
    """
    return os.environ.get("VLLM_VTPRUNE_DISABLE", "") not in ("", "0")
