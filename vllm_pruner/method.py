"""The former home of the method types, for methods of other packages written against 0.1.

May go with version 0.3; new code imports `vllm_pruner.methods.base`.
"""

from vllm_pruner.methods.base import TOWER, Merged, Method, Need, Options, VisualTokens

__all__ = ["TOWER", "Merged", "Method", "Need", "Options", "VisualTokens"]
