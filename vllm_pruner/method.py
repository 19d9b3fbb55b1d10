"""Re-exports the method types at their old path, for methods of other packages written for 0.1.

Remove with version 0.3. New code imports `vllm_pruner.methods.base`, where `Merged` is `Kept`.
"""

from vllm_pruner.methods.base import TOWER, Method, Need, Options, VisualTokens
from vllm_pruner.methods.base import Kept as Merged

__all__ = ["TOWER", "Merged", "Method", "Need", "Options", "VisualTokens"]
