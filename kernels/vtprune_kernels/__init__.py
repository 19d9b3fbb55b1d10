"""Selection operators of vtprune: torch only, no knowledge of vLLM or of the methods built on them.

Each operator is one file named like its public function. The plain-torch reference beside it has
the same signature, defines the result, and is what runs on a CPU.
"""

from vtprune_kernels.cls_importance import cls_importance
from vtprune_kernels.column_importance import column_importance
from vtprune_kernels.cosine_gram import cosine_gram
from vtprune_kernels.dedup import dedup
from vtprune_kernels.gather_rows import gather_rows
from vtprune_kernels.top_k_sorted import top_k_sorted

__all__ = [
    "cls_importance",
    "column_importance",
    "cosine_gram",
    "dedup",
    "gather_rows",
    "top_k_sorted",
]
