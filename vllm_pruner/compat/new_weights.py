"""Say when what a worker's model computed before is void.

Replaces: `Worker.reset_encoder_cache`, `Worker.reload_weights` and `Worker.finish_weight_update`;
each does what it did, and ours after it.
Why: vLLM drops the embeddings that it keeps and asks a model for nothing. It does so where weights
change in place, and where the memory that a model was built in is given away (sleep of level 2).
Relies on: those methods being the way to a worker for `reset_encoder_cache` of the engine, pausing
and sleeping included, and for new weights from a file or from a trainer.
vLLM versions: 0.31 to 0.33.
Goes when: vLLM tells the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm_pruner.compat.patching import Patch, apply

__all__ = ["when_weights_change"]

_METHODS = ("reset_encoder_cache", "reload_weights", "finish_weight_update")


def when_weights_change(forget: Callable[[Any], None]) -> None:
    """Have a function called with the worker's model after each of these. The first one stays."""
    from vllm.v1.worker.gpu_worker import Worker

    def and_forget(original: Callable[..., Any]) -> Callable[..., Any]:
        def method(self: Worker, *args: Any, **kwargs: Any) -> Any:
            result = original(self, *args, **kwargs)
            forget(self.get_model())
            return result

        return method

    apply(*(Patch(Worker, name, and_forget) for name in _METHODS))
