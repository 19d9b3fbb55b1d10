"""Selection operators of vtprune in torch and Triton, independent of vLLM and of the methods built
on them.

Each operator is one file, named after its public function. The plain-torch reference in it has the
same signature, defines the result, and runs on a CPU. The kernels that run on a GPU are in the file
of the same name with `_triton`. `kernels/README.md` has the table of operators.
"""

from vtprune_kernels._triton import implementation
from vtprune_kernels.cls_importance import cls_importance
from vtprune_kernels.column_importance import column_importance
from vtprune_kernels.cosine_gram import cosine_gram
from vtprune_kernels.dedup import dedup
from vtprune_kernels.gather_rows import gather_rows
from vtprune_kernels.greedy_select import greedy_select
from vtprune_kernels.picked_sorted import picked_sorted
from vtprune_kernels.ranked import ranked
from vtprune_kernels.relative_scores import relative_scores
from vtprune_kernels.row_max_cosine import row_max_cosine
from vtprune_kernels.text_relevance import text_relevance
from vtprune_kernels.top_k_sorted import top_k_sorted

__all__ = [
    "cls_importance",
    "column_importance",
    "cosine_gram",
    "dedup",
    "gather_rows",
    "greedy_select",
    "implementation",
    "picked_sorted",
    "ranked",
    "relative_scores",
    "row_max_cosine",
    "text_relevance",
    "top_k_sorted",
]
