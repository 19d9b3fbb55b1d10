"""vLLM's front ends that are not its Python server prepare images themselves, without a plan: the
engine would encode all of their tokens. They are refused when the server starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm import envs

from vllm_pruner.settings.errors import ConfigError

if TYPE_CHECKING:
    import argparse

__all__ = ["check"]


def check(args: argparse.Namespace) -> None:
    """Refuse a command line whose prompts are made by another front end.

    Args:
        args: those of `vllm serve`, parsed.

    Raises:
        ConfigError: one sentence with the flag or variable, its value and what is allowed.
    """
    if getattr(args, "grpc", False):
        raise ConfigError(
            "--grpc is given; allowed: the HTTP server, because images that come by gRPC have been "
            "prepared elsewhere and would stay unpruned"
        )
    if envs.VLLM_USE_RUST_FRONTEND:
        raise ConfigError(
            "VLLM_USE_RUST_FRONTEND is 1; allowed: 0, because the Rust front end prepares images "
            "itself, and they would stay unpruned"
        )
