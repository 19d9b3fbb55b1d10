"""What parts of a request cost, in seconds, as fitted to a machine's measurements."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vtprune_server.command.ask import CommandError

__all__ = ["MEASURED", "Costs", "read_costs"]

MEASURED = Path(__file__).with_name("h200_llava_1_5_7b.json")
"""The one set that comes with vtprune; its `source` says where each figure is from."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds, unless the text says otherwise. Those of steps include what the host launches."""

    api_request: float
    """Of an API server: a request's text, from parsing it to its last event."""
    api_delay: float
    """Of a request: what it waits for and no core does, such as sockets and other processes."""
    api_image: float
    """Of an API server: one picture of `picture_pixels`, read, resized and sent on."""
    api_token: float
    """Of an API server: one streamed token."""
    step: float
    """Of the engine: any step, the decoder's weights read once."""
    step_sequence: float
    """Of the engine: each request that a step adds a token to."""
    prefill_token: float
    """Of the engine: each prompt token that a step computes."""
    engine_request: float
    """Of the engine: what taking up a request adds to its first step."""
    engine_image: float
    """Of the engine: what taking up a picture adds to its first step, the tower aside."""
    tower_launch: float
    """The least that a batch of pictures takes in the tower: the launches of its kernels."""
    tower_image: float
    """Each picture of `tower_tokens` in the tower, where a batch is large enough."""
    selection: float
    """Choosing the kept tokens of a batch of pictures, and gathering them."""
    picture_pixels: int
    """Pixels of the picture that `api_image` is of."""
    tower_tokens: int
    """Visual tokens, unpruned, of the picture that `tower_image` is of."""
    step_tokens: int
    """`--max-num-batched-tokens`."""
    kv_tokens: int
    """Tokens that the KV cache has room for."""

    def tower(self, tokens: float) -> float:
        """Seconds of a batch of pictures with so many unpruned tokens together."""
        return max(self.tower_launch, self.tower_image * tokens / self.tower_tokens)


def read_costs(file: Path) -> tuple[Costs, dict[str, Any]]:
    """Return the costs in a file, and all that it says of itself.

    Raises:
        CommandError: it cannot be read, or names other costs than there are.
    """
    names = {field.name for field in fields(Costs)}
    try:
        said: dict[str, Any] = json.loads(file.read_text())
        given = said["costs"]
        if set(given) != names or not all(value >= 0 for value in given.values()):
            raise ValueError
        said = {"about": str(file), "most_measured": math.inf, **said}
    except (OSError, ValueError, KeyError, TypeError):
        allowed = ", ".join(sorted(names))
        raise CommandError(
            f"costs is {str(file)!r}; allowed: a JSON file with numbers from 0 for {allowed} "
            'under "costs"'
        ) from None
    return Costs(**given), said
