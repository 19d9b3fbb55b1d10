"""What a launch has to know of the GPU that it compiles for.

NVIDIA's GPUs and AMD's are both `cuda` devices to torch, and all kernels serve both. They differ in
the threads of a warp, in the registers that a thread may have, and in the options of Triton's
compilers: AMD's refuses a bound on registers, which it does not need.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

__all__ = ["Gpu", "gpu_of"]


@dataclass(frozen=True, slots=True)
class Gpu:
    """A kind of GPU, or the CPU that Triton's interpreter runs on."""

    backend: str
    """Triton's name of its compiler: `cuda` or `hip`; `cpu` for the interpreter."""

    capability: int = 0
    """NVIDIA's compute capability times ten; 0 for others."""

    warp: int = 32
    """Threads of a warp, 64 on AMD's Instinct GPUs, where it is called a wavefront."""

    @property
    def interpreted(self) -> bool:
        """Whether kernels run in the interpreter. It holds bfloat16 as bare bits and multiplies
        those in `tl.dot`, so kernels convert to float32 first."""
        return self.backend == "cpu"

    def warps(self, threads: int) -> int:
        """Return how many warps have that many threads, at least one."""
        return max(1, threads // self.warp)

    def registers(self, most: int) -> dict[str, int]:
        """Return the option of a launch that lets a thread have that many registers. Without it,
        NVIDIA's assembler spills some, to leave room for programs that do not come."""
        return {"maxnreg": most} if self.backend == "cuda" else {}


@functools.cache
def gpu_of(device: torch.device) -> Gpu:
    """Return what kind of GPU a device is."""
    if device.type != "cuda":
        return Gpu("cpu")
    if torch.version.hip is not None:
        return Gpu("hip", warp=torch.cuda.get_device_properties(device).warp_size)
    major, minor = torch.cuda.get_device_capability(device)
    return Gpu("cuda", 10 * major + minor)
