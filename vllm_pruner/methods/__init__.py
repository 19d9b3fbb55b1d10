"""The built-in methods, one paper a file; importing this package registers them."""

from vllm_pruner.methods import adafv, attention, random, uniform, vispruner

__all__ = ["adafv", "attention", "random", "uniform", "vispruner"]
