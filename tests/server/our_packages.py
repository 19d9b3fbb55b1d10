"""The packages of this repository, and the folder that each is imported from."""

from __future__ import annotations

from pathlib import Path

import vllm_pruner

__all__ = ["PACKAGES", "ROOT"]

ROOT = Path(vllm_pruner.__file__).parents[1]
PACKAGES = {
    "vllm_pruner": ROOT,
    "vtprune_kernels": ROOT / "kernels",
    "vtprune_server": ROOT / "server",
    "vtprune_evaluate": ROOT / "evaluate",
}
