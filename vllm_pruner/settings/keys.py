"""The names under which vtprune stores data in vLLM's objects, one for each kind of data."""

from __future__ import annotations

from typing import Any

__all__ = [
    "BYTES",
    "COUNTS",
    "DUMMY",
    "KEY",
    "PLANS",
    "PLAN_BETWEEN",
    "PLAN_IMAGE",
    "PLAN_KEEP",
    "PLAN_SETTINGS",
    "PLAN_TEXT",
    "REPORT",
    "TOLD",
    "WHOLE",
    "sent_with",
    "settings_in",
]

KEY = "vtprune"
"""Settings; the only name that users write. In the engine's `mm_processor_kwargs`, the operator's:
keys of `ServerConfig`. In a request's body or its `mm_processor_kwargs`, the client's: keys of
`PruneConfig`, and on their way to the processor also `detail.DETAIL`. Errors begin with it."""

BYTES = f"{KEY}_bytes"
"""A field of an image on its way to the model, in place of its pixels: `[..., height, width, 3]`
uint8, before the processor's last step; see `byte_pixels`."""

DUMMY = f"{KEY}_dummy"
"""In the processor's kwargs: marks vLLM's dummy images for its memory profile."""

PLANS = f"{KEY}_plans"
"""In the processor's kwargs: a `list[ImagePlan]` by modality, passed between two of its mixins."""

PLAN_SETTINGS = f"{KEY}_settings"
"""A field of an image on its way to the model: the canonical text of a `PruneConfig` as bytes."""

PLAN_IMAGE = f"{KEY}_image"
"""A field of an image on its way to the model: vLLM's identity of it as bytes."""

PLAN_TEXT = f"{KEY}_text"
"""A field of an image on its way to the model: the token ids of the text that asks about it."""

PLAN_KEEP = f"{KEY}_keep"
"""A field of an image on its way to the model: its number of visual tokens, 0 if not known."""

PLAN_BETWEEN = f"{KEY}_between"
"""A field of a video on its way to the model: the tokens between its frames, if these are joined.
`[tokens, 2]`: an id, and the frame that it follows."""

WHOLE = f"{KEY}_whole"
"""A field of an image or video on its way from the server that rendered it to another one: it has
no plan because all of it is kept."""

REPORT = f"{KEY}_report"
"""In the engine's input, for usage and span: the result of `prompt.asked.report`."""

COUNTS = f"{KEY}_counts"
"""On a request object, until it is answered: the counts for its usage."""

TOLD = f"{KEY}_told"
"""In the scope of an HTTP request: a dict, filled with the counts of the answer's usage before the
answer begins."""


def settings_in(holder: Any) -> Any:
    """Return the settings in an object's `mm_processor_kwargs`, None if there are none.

    Args:
        holder: vLLM's `EngineArgs`, a request, or vLLM's `MultiModalConfig`, which is None for a
            text-only model.
    """
    return (getattr(holder, "mm_processor_kwargs", None) or {}).get(KEY)


def sent_with(request: Any) -> object:
    """Return the settings that a client sent with a request: in its body or, where those are
    trusted, in the processor's arguments; None if it sent none."""
    said = getattr(request, KEY, None)
    return settings_in(request) if said is None else said
