"""Suppress vLLM's warning about overridden model classes if they are ours.

Replaces: nothing; a filter of the logger `vllm.config.model`.
Why: the warning, "intended for development/debugging", is meant for classes that somebody tries
out. Ours are what the operator asked for, and the plugin's own line names the model it serves.
Relies on: the message, and the classes being its only argument, as text. If either differs, the
warning is shown.
vLLM versions: 0.31 to 0.33.
Goes when: a plugin can replace a model's class without a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

__all__ = ["quiet_overrides"]

_LOGGER = "vllm.config.model"
_MESSAGE = "Applying model_class_overrides %s."


class _OursAreMeant(logging.Filter):
    def __init__(self, classes: Callable[[], Mapping[str, str]]) -> None:
        super().__init__()
        self._classes = classes

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to show a line: not if it is about exactly our classes."""
        if not str(record.msg).startswith(_MESSAGE):
            return True
        return record.args != (str(dict(self._classes())),)


def quiet_overrides(classes: Callable[[], Mapping[str, str]]) -> None:
    """Suppress the warning if it names our classes and no others. Safe to call again.

    Args:
        classes: returns our class for each architecture; called when the warning is logged.
    """
    logger = logging.getLogger(_LOGGER)
    if not any(isinstance(each, _OursAreMeant) for each in logger.filters):
        logger.addFilter(_OursAreMeant(classes))
