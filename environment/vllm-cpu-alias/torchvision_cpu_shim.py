"""Lets a CUDA build of torchvision be imported beside a CPU build of torch.

What breaks: package indexes carry torchvision for Linux as a CUDA build only. Its compiled
operators do not load beside a CPU torch, which torchvision tolerates, but it then registers fake
kernels for two of them, and torch refuses: "operator torchvision::nms does not exist". vLLM's
LLaVA processors need torchvision.transforms, which needs none of these operators.
Seen with torch 2.13.0+cpu and torchvision 0.28.0.

What this does: just before the first import of torchvision it tries to load the operators; only
if that fails it declares the two schemas, without kernels. At interpreter start it costs one entry
of sys.meta_path; torch is imported when torchvision is, never earlier.

Delete when the CPU build of torchvision is always at hand, or torchvision registers those fake
kernels only after its operators were loaded.
"""

import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[object] = []  # torch withdraws a schema when its Library is collected


def _declare_missing_operators(folder: str) -> None:
    import torch

    try:
        torch.ops.load_library(f"{folder}/_C.so")
    except OSError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in _SCHEMAS:
            library.define(schema)
        _libraries.append(library)


class _TorchvisionFinder:
    """Finds torchvision as usual, and runs the declaration ahead of its first line."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name) if name == "torchvision" else None
        if spec is None or spec.loader is None or not spec.submodule_search_locations:
            return None
        folder, execute = spec.submodule_search_locations[0], spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            _declare_missing_operators(folder)
            execute(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Called by torchvision_cpu_shim.pth at interpreter start."""
    sys.meta_path.insert(0, _TorchvisionFinder)
