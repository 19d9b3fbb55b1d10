"""The costs of a request's parts, in seconds, fitted to measurements of a machine."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vtprune_server.command.ask import CommandError

__all__ = ["MEASURED", "Costs", "read_costs"]

MEASURED = Path(__file__).with_name("h200_llava_1_5_7b.json")
"""The one set that comes with vtprune; its `source` says where each number is from."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds, unless the text says otherwise. Those of the engine include kernel launches."""

    api_request: float
    """API server, per request: handling it without its pictures and tokens, from parsing on."""
    api_delay: float
    """Per request: latency that occupies no core, such as sockets and other processes."""
    api_image: float
    """API server, per picture of `picture_pixels`: reading, resizing and passing it on."""
    api_token: float
    """API server, per streamed token."""
    step: float
    """Engine, per step: mainly reading the decoder's weights."""
    step_sequence: float
    """Engine, per running request in a step."""
    prefill_token: float
    """Engine, per prompt token that a step computes."""
    engine_request: float
    """Engine, per request: what scheduling it adds to its first step."""
    engine_image: float
    """Engine, per picture: what scheduling it adds to its first step, without the tower."""
    tower_launch: float
    """Tower: the least that a batch of pictures takes, which is launching the kernels."""
    tower_image: float
    """Tower, per picture of `tower_tokens` in a large batch."""
    selection: float
    """Per batch of pictures: selecting and gathering the kept tokens."""
    picture_pixels: int
    """Pixels of the picture that `api_image` was measured with."""
    tower_tokens: int
    """Visual tokens, unpruned, of the picture that `tower_image` was measured with."""
    step_tokens: int
    """`--max-num-batched-tokens`."""
    kv_tokens: int
    """Tokens that fit into the KV cache."""

    def tower(self, tokens: float) -> float:
        """Seconds for a batch of pictures with `tokens` unpruned tokens in total."""
        return max(self.tower_launch, self.tower_image * tokens / self.tower_tokens)


def read_costs(file: Path) -> tuple[Costs, dict[str, Any]]:
    """Return the costs in a file, and the whole file as a dictionary.

    Raises:
        CommandError: the file cannot be read, or lacks a cost, or has an unknown one.
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
