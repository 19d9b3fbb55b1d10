"""What vtprune calls the things that it puts into vLLM's objects: one name, one payload."""

from __future__ import annotations

from typing import Any

__all__ = [
    "BYTES",
    "COUNTS",
    "DUMMY",
    "KEY",
    "PLANS",
    "PLAN_IMAGE",
    "PLAN_KEEP",
    "PLAN_SETTINGS",
    "PLAN_TEXT",
    "REPORT",
    "TOLD",
    "settings_in",
]

KEY = "vtprune"
"""Settings, the only name that users write. In the engine's `mm_processor_kwargs` the operator's:
keys of `ServerConfig`. In a request's body, or in its `mm_processor_kwargs`, the client's: keys of
`PruneConfig`; on their way to the processor also `rules.DETAIL`. Errors begin with it."""

BYTES = f"{KEY}_bytes"
"""A field of an image on its way to the model, in place of its pixels: the same as bytes `[...,
height, width, 3]`, before the processor's last step; see `byte_pixels`."""

DUMMY = f"{KEY}_dummy"
"""In the processor's kwargs: that vLLM made the images up for its memory profile."""

PLANS = f"{KEY}_plans"
"""In the processor's kwargs: a `list[ImagePlan]` by modality, between two mixins of a processor."""

PLAN_SETTINGS = f"{KEY}_settings"
"""A field of an image on its way to the model: the canonical text of a `PruneConfig` as bytes."""

PLAN_IMAGE = f"{KEY}_image"
"""A field of an image on its way to the model: vLLM's identity of it as bytes."""

PLAN_TEXT = f"{KEY}_text"
"""A field of an image on its way to the model: the ids of the text that asks about it."""

PLAN_KEEP = f"{KEY}_keep"
"""A field of an image on its way to the model: how many placeholders it has, 0 if not known."""

REPORT = f"{KEY}_report"
"""In the engine's input, for usage and span: what `prompt.asked.report` returns."""

COUNTS = f"{KEY}_counts"
"""On a request object: what its usage says, between its prompt and its answer."""

TOLD = f"{KEY}_told"
"""In the scope of an HTTP request: a dict, filled with what its usage says before its answer
begins."""


def settings_in(holder: Any) -> Any:
    """Return the settings in something's `mm_processor_kwargs`, None if there are none.

    Args:
        holder: vLLM's `EngineArgs`, a request, or its `MultiModalConfig`, which is None for a model
            of text.
    """
    return (getattr(holder, "mm_processor_kwargs", None) or {}).get(KEY)
