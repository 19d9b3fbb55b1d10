"""The class of a model for an engine that prunes, and for one that does not, in one process.

Replaces: `ModelConfig._maybe_register_model_class_overrides` and `get_model_architecture`, in a
process that makes a configuration with settings of ours.
Why: vLLM registers `model_class_overrides` for the process, and remembers the class of a checkpoint
by its name. So a second `LLM` would have the first one's classes: one that is to prune would not,
and one without settings would.
Relies on: `ModelConfig.registry` passing through the first for every class that is looked up, and
the second through that, unless `_MODEL_ARCH_BY_HASH` has the class; `ModelRegistry.models`.
vLLM versions: 0.31 to 0.33.
Goes when: `model_class_overrides` hold for their own configuration alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vllm_pruner.compat.patching import Patch, apply

if TYPE_CHECKING:
    from vllm.config import ModelConfig

__all__ = ["patch_model_classes"]


class _Exchange:
    """Puts the entries of an engine's architectures into the process's registry."""

    def __init__(self, classes: Callable[[], Mapping[str, str]]) -> None:
        self._classes = classes
        self._aside: dict[str, Any] = {}
        """The entries of the other kind of engine; none of ours before vLLM registers them."""
        self._ours_are_in = False

    def make(self, config: ModelConfig) -> None:
        """Have the registry hold what a configuration asks for."""
        from vllm.model_executor.model_loader import utils
        from vllm.model_executor.models import ModelRegistry

        overrides, names = config.model_class_overrides, self._classes()
        ours = bool(overrides) and names.items() <= overrides.items()
        if ours == self._ours_are_in:
            return
        models = ModelRegistry.models
        there = {name: models[name] for name in names if name in models}
        if not ours:  # what only we have goes, too
            for name in there:
                del models[name]
        models.update(self._aside)
        self._aside, self._ours_are_in = there, ours
        utils._MODEL_ARCH_BY_HASH.clear()


def patch_model_classes(classes: Callable[[], Mapping[str, str]]) -> None:
    """Give each engine of a process the classes of its own configuration. Safe to call again.

    Args:
        classes: returns our class for each architecture.

    Raises:
        RuntimeError: this vLLM lacks one of the functions.
    """
    from vllm.config import ModelConfig
    from vllm.model_executor import model_loader
    from vllm.model_executor.model_loader import utils

    exchange = _Exchange(classes)

    def registering(register: Callable[[ModelConfig], None]) -> Callable[[ModelConfig], None]:
        def _maybe_register_model_class_overrides(self: ModelConfig) -> None:
            exchange.make(self)
            register(self)

        return _maybe_register_model_class_overrides

    def finding(find: Callable[[ModelConfig], Any]) -> Callable[[ModelConfig], Any]:
        def get_model_architecture(model_config: ModelConfig) -> Any:
            exchange.make(model_config)
            return find(model_config)

        return get_model_architecture

    apply(
        Patch(ModelConfig, "_maybe_register_model_class_overrides", registering),
        Patch(utils, "get_model_architecture", finding),
        Patch(model_loader, "get_model_architecture", finding),
    )
