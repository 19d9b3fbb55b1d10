"""The former home of the method types, for methods of other packages written against 0.1.

May go with version 0.3; new code imports `vllm_pruner.methods.base`, where `Merged` is `Kept`.
"""

from vllm_pruner.methods.base import TOWER, Method, Need, Options, VisualTokens
from vllm_pruner.methods.base import Kept as Merged

__all__ = ["TOWER", "Merged", "Method", "Need", "Options", "VisualTokens"]
