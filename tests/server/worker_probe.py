"""A vLLM worker extension for tests: records what the model on each rank encoded and selected.

Loaded into the workers by `--worker-extension-cls`; the product knows nothing of it.
"""

from __future__ import annotations

from typing import Any

import torch


class WorkerProbe:
    """Methods that vLLM adds to its worker; called by `/collective_rpc`."""

    def start_probe(self) -> dict[str, Any]:
        """Begin recording, from nothing."""
        model: Any = self.get_model()  # type: ignore[attr-defined]
        if not hasattr(model, "_probe_record"):
            _install(model)
        model._probe_record.update(images=[], kept=[], importance=[])
        return {}

    def forget_features(self) -> dict[str, Any]:
        """Empty the cache of the tower's features."""
        self.get_model()._encoder.cache.clear()  # type: ignore[attr-defined]
        return {}

    def read_probe(self) -> dict[str, Any]:
        """Return images per tower call, and kept indices and importance per image."""
        record: dict[str, Any] = self.get_model()._probe_record  # type: ignore[attr-defined]
        return record


def _install(model: Any) -> None:
    record: dict[str, Any] = {}
    model._probe_record = record

    def note(tokens: Any, kept: torch.Tensor, _layout: Any) -> None:
        record["kept"] += kept.tolist()
        if tokens.importance is not None:
            record["importance"] += tokens.importance.tolist()

    def count(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        pixels = args[0] if args else next(iter(kwargs.values()))
        record["images"].append(len(pixels))

    model.on_selection = note
    model.tower.module.register_forward_pre_hook(count, with_kwargs=True)
