"""lmms-eval and vtprune: a model for it that asks a pruned server, and its tasks for the tuner.

Nothing here imports lmms-eval before it is asked for, so that it need not be installed.
"""

from __future__ import annotations

from typing import Any

__all__ = ["manifest"]


def manifest() -> Any:
    """Return what lmms-eval reads from the entry point `lmms_eval.models`: a model `vtprune`."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("vtprune", chat_class_path="vtprune_evaluate.lmms.model.PrunedServer")
