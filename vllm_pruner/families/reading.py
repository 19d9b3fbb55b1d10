"""What is pruned by default where a model is there to read documents: what is empty, and nothing
else.

Any choice among tokens that show something loses letters, and nobody has measured how many such a
model can spare. But most of a page is paper. `pixels` finds it before the tower runs, and its floor
`content` applies the rate to tokens of one brightness alone: of a page that has none, nothing goes.
"""

from __future__ import annotations

from typing import Any, Final

from vllm_pruner.families.merging import MERGING

__all__ = ["READING"]

READING: Final[dict[str, Any]] = MERGING | {"default_method": "pixels", "encodes_some": True}
"""Fields of `Family`. The rate is that of the floor (`settings.config.EMPTY_RATE`), unless the
operator names another method."""
