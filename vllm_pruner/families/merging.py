"""What is pruned by default where a token is several patches already, merged by the tower or behind
it: less than of LLaVA's, and by a cheaper method.

- One ninth is too few: retaining 97 % of Qwen3-VL's scores takes about 40 % of the tokens (F3A,
  arXiv 2605.16359), and text suffers first (Qwen2.5-VL-7B at a quarter: TextVQA .702 instead of
  .862, "The Lossy Merger", a draft).
- Where a half is kept `scope` answers no better: 99 % of the demo Qwen2.5-VL's accuracy are left,
  98 by `vispruner`, with intervals of 3 points on either side (`docs/methods.md`). And it takes its
  tokens one after another, which no card has timed since its kernel was rewritten.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["MERGING"]

MERGING: Final[dict[str, Any]] = {
    "merger": True,
    "default_method": "vispruner",
    "default_rate": 0.5,
}
"""Fields of `Family`."""
