"""The built-in methods, one paper a file; importing this package registers them."""

from vllm_pruner.methods import attention, random, uniform, vispruner

__all__ = ["attention", "random", "uniform", "vispruner"]
