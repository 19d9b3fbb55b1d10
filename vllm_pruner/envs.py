"""The environment variables of vtprune; nothing else reads the environment.

The prefix is `VLLM_VTPRUNE_` because vLLM copies variables that begin with `VLLM_` to Ray workers.
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
    "trial",
]

_METRICS = "VLLM_VTPRUNE_METRICS_DIR"
_CANARY = "VLLM_VTPRUNE_CANARY"
_LOG_EVERY = "VLLM_VTPRUNE_LOG_EVERY"
_METHOD_SECONDS = "VLLM_VTPRUNE_METHOD_SECONDS"
_TRIAL = "VLLM_VTPRUNE_TRIAL"


def disabled() -> bool:
    """Whether the kill switch is on.

    `VLLM_VTPRUNE_DISABLE=1` serves the stock model although pruning is configured, without any
    change to the command line. Unset, empty and `0` mean off.
    """
    return os.environ.get("VLLM_VTPRUNE_DISABLE", "") not in ("", "0")


def canary() -> bool:
    """Whether a test image must pass through processor and model before the server is ready.

    `VLLM_VTPRUNE_CANARY=1` asks for it on any vLLM; vtprune sets it on a release it does not know.
    """
    return os.environ.get(_CANARY, "") not in ("", "0")


def ask_for_canary() -> None:
    """Turn the canary on for this process and those it starts."""
    os.environ[_CANARY] = "1"


def trial() -> bool | None:
    """Whether kernels are compared with their references at load; None if nobody has said.

    Raises:
        ValueError: `VLLM_VTPRUNE_TRIAL` is neither 0 nor 1; the message is one sentence.
    """
    said = os.environ.get(_TRIAL, "")
    if said not in ("", "0", "1"):
        raise ValueError(f"{_TRIAL} is {said!r}; allowed: 1 for a trial at load, 0 for none")
    return bool(int(said)) if said else None


def log_every() -> int:
    """How many requests with images one line of the log sums up; 0 for no such lines.

    Raises:
        ValueError: `VLLM_VTPRUNE_LOG_EVERY` is not a whole number; the message is one sentence.
    """
    said = os.environ.get(_LOG_EVERY) or "1000"
    if not (said.isascii() and said.isdigit()):
        raise ValueError(f"{_LOG_EVERY} is {said!r}; allowed: a number of requests, 0 for no lines")
    return int(said)


def method_seconds() -> float:
    """How many seconds a call of another package's method may take.

    The bound is well below vLLM's timeout for a step (`VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS`, 300),
    after which the engine shuts down.

    Raises:
        ValueError: `VLLM_VTPRUNE_METHOD_SECONDS` is out of range; the message is one sentence.
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
    """The folder of prometheus_client's multiprocess mode, which vLLM sets for several API
    servers; None otherwise."""
    return os.environ.get("PROMETHEUS_MULTIPROC_DIR") or None


def metrics_folder() -> str | None:
    """The folder to which this process writes its counts; None if it does not count."""
    return os.environ.get(_METRICS) or None


def set_metrics_folder(folder: str) -> None:
    """Set the folder for counts, for this process and those it starts."""
    os.environ[_METRICS] = folder
