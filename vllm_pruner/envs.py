"""The environment variables of vtprune: the only place where the environment is read.

`VLLM_VTPRUNE_` is the prefix because vLLM copies variables that begin with `VLLM_` to Ray workers.
"""

from __future__ import annotations

import os

__all__ = [
    "ask_for_canary",
    "canary",
    "disabled",
    "log_every",
    "method_seconds",
    "metrics_folder",
    "prometheus_folder",
    "set_metrics_folder",
]

_METRICS = "VLLM_VTPRUNE_METRICS_DIR"
_CANARY = "VLLM_VTPRUNE_CANARY"
_LOG_EVERY = "VLLM_VTPRUNE_LOG_EVERY"
_METHOD_SECONDS = "VLLM_VTPRUNE_METHOD_SECONDS"


def disabled() -> bool:
    """Whether the kill switch is on.

    `VLLM_VTPRUNE_DISABLE=1` serves the stock model although pruning was configured: the operator's
    way out that needs no change of any command line. Unset, empty and `0` mean off.
    """
    return os.environ.get("VLLM_VTPRUNE_DISABLE", "") not in ("", "0")


def canary() -> bool:
    """Whether a picture has to go through processor and model before a server answers.

    `VLLM_VTPRUNE_CANARY=1` asks for it on any vLLM; on one that vtprune does not know it is set.
    """
    return os.environ.get(_CANARY, "") not in ("", "0")


def ask_for_canary() -> None:
    """Tell this process, and all that it starts, that a picture has to."""
    os.environ[_CANARY] = "1"


def log_every() -> int:
    """How many requests with images one line of the log sums up; 0 for no such lines.

    Raises:
        ValueError: one sentence, if `VLLM_VTPRUNE_LOG_EVERY` is no such number.
    """
    said = os.environ.get(_LOG_EVERY) or "1000"
    if not (said.isascii() and said.isdigit()):
        raise ValueError(f"{_LOG_EVERY} is {said!r}; allowed: a number of requests, 0 for no lines")
    return int(said)


def method_seconds() -> float:
    """How long a call of another package's method may take; well below vLLM's own bound of a step
    (`VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS`, 300), at which the engine ends.

    Raises:
        ValueError: one sentence, if `VLLM_VTPRUNE_METHOD_SECONDS` is no such number.
    """
    said = os.environ.get(_METHOD_SECONDS) or "30"
    try:
        seconds = float(said)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 250:
        raise ValueError(f"{_METHOD_SECONDS} is {said!r}; allowed: seconds above 0, up to 250")
    return seconds


def prometheus_folder() -> str | None:
    """The folder in which prometheus_client adds up processes; vLLM sets it for several API
    servers."""
    return os.environ.get("PROMETHEUS_MULTIPROC_DIR") or None


def metrics_folder() -> str | None:
    """Where this process writes its counts; None if nobody asked for them."""
    return os.environ.get(_METRICS) or None


def set_metrics_folder(folder: str) -> None:
    """Tell this process, and all that it starts, where to write counts."""
    os.environ[_METRICS] = folder
