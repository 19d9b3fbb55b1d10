"""Compare the kernels with their references at load, on GPUs that no run of ours has seen.

All kernels ran on NVIDIA's, and agreed there. For AMD's they compile, which says nothing of what
comes out, and a kernel that chose wrong tokens would be noticed by nobody: the answers would only
be worse. So there a server starts only if each operator agrees with plain torch.
"""

from __future__ import annotations

import logging
import time

import torch
from vtprune_kernels.trial import trial

from vllm_pruner import compat, envs

__all__ = ["try_kernels"]

logger = logging.getLogger("vllm.vtprune")


def try_kernels(device: torch.device) -> None:
    """Run every operator on small inputs, where that is due: on AMD's GPUs, or as
    `VLLM_VTPRUNE_TRIAL` says.

    Raises:
        RuntimeError: some differ; the message is one sentence.
    """
    said = envs.trial()
    if not (compat.on_rocm() if said is None else said):
        return
    start = time.perf_counter()
    if failed := dict(trial(device)):
        for name, why in failed.items():
            logger.error("vtprune: the kernels of %s: %s", name, why)
        raise RuntimeError(
            f"vtprune: on this GPU the kernels of {', '.join(failed)} differ from their "
            "references; allowed: VLLM_VTPRUNE_DISABLE=1 to serve without pruning, or "
            "VLLM_VTPRUNE_TRIAL=0 to prune all the same"
        )
    logger.info(
        "vtprune: all kernels agree with their references on this GPU, compared in %.1f s",
        time.perf_counter() - start,
    )
