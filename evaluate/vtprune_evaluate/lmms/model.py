"""The model `vtprune` of lmms-eval: a server that runs vtprune, asked under settings of one's own.

lmms-eval's own model `openai` sends what OpenAI's API knows and nothing else. This one is that
model, with the settings in the body of every request:

    lmms-eval --model vtprune --tasks pope --model_args \\
      model=llava,base_url=http://localhost:8000/v1,prune_rate=0.75,prune_method=cdpruner

`prune_` and a key of the settings, as the server's flags are called. A server refuses what it does
not know, and the answers then say so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from lmms_eval.models.chat.openai import OpenAICompatible

__all__ = ["PrunedServer"]

_PREFIX = "prune_"


class PrunedServer(OpenAICompatible):  # type: ignore[misc]  # lmms-eval has no types
    """lmms-eval 0.7's `openai`, with one change: arguments `prune_*` go into every request."""

    def __init__(self, **arguments: Any) -> None:
        ours = {key: value for key, value in arguments.items() if key.startswith(_PREFIX)}
        super().__init__(**{key: arguments[key] for key in arguments.keys() - ours.keys()})
        settings = {key.removeprefix(_PREFIX): value for key, value in ours.items()}
        completions = self.client.chat.completions
        completions.create = partial(_create, completions.create, settings)


def _create(create: Callable[..., Any], settings: dict[str, Any], **request: Any) -> Any:
    """Ask with the settings, beside whatever else lmms-eval puts into the body."""
    return create(**request, extra_body={**request.pop("extra_body", {}), "vtprune": settings})
