"""The vLLM releases that vtprune runs on."""

from __future__ import annotations

__all__ = ["SUPPORTED", "check_version"]

SUPPORTED = "0.32"
"""The vLLM minor release that this package was read against and run on."""


def check_version() -> None:
    """Refuse a vLLM that vtprune was not checked on.

    pip's bound says the same, but images and forks are installed past pip.

    Raises:
        RuntimeError: the version differs.
    """
    import vllm

    version = str(vllm.__version__)
    if not version.startswith(f"{SUPPORTED}."):
        raise RuntimeError(
            f"vtprune: vLLM is {version}; allowed: {SUPPORTED}.x "
            "(uninstall vtprune or set VLLM_VTPRUNE_DISABLE=1 to run this vLLM without it)"
        )
