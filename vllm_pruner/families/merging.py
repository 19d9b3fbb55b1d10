"""What is pruned by default where a token is several patches already, merged by the tower or behind
it: less than of LLaVA's, and by a cheaper method; and where a model is there to read documents:
what is empty, and nothing else.

- One ninth is too few: retaining 97 % of Qwen3-VL's scores takes about 40 % of the tokens (F3A,
  arXiv 2605.16359), and text suffers first (Qwen2.5-VL-7B at a quarter: TextVQA .702 instead of
  .862, "The Lossy Merger", a draft).
- Where a half is kept `scope` answers no better: 99 % of the demo Qwen2.5-VL's accuracy are left,
  98 by `vispruner`, with intervals of 3 points on either side (`docs/methods.md`). And it takes its
  tokens one after another, which no card has timed since its kernel was rewritten.
- Any choice among tokens that show something loses letters, and nobody has measured how many a
  reader of documents can spare. But most of a page is paper: `pixels` finds it before the tower
  runs, and its floor `content` applies the rate to tokens of one brightness alone.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["MERGING", "READING"]

MERGING: Final[dict[str, Any]] = {
    "merger": True,
    "default_method": "vispruner",
    "default_rate": 0.5,
}
"""Fields of `Family`."""

READING: Final[dict[str, Any]] = MERGING | {"default_method": "pixels", "encodes_some": True}
"""Of models that read documents. The rate is that of the floor (`settings.defaults.EMPTY_RATE`),
unless the operator names another method."""
