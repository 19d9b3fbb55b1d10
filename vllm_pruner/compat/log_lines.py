"""vLLM's warning about classes of models that a start names, where the classes are ours.

Replaces: nothing; a filter of the logger `vllm.config.model`.
Why: "intended for development/debugging" is about classes that somebody tries out. Ours are what
the server was asked for, and the plugin's own line names the one that serves.
Relies on: the message, and the classes being its only argument, as text. Where either differs the
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
        """Whether to show a line; one about other classes than ours, or about more, is shown."""
        if not str(record.msg).startswith(_MESSAGE):
            return True
        return record.args != (str(dict(self._classes())),)


def quiet_overrides(classes: Callable[[], Mapping[str, str]]) -> None:
    """Leave out the warning that names our classes and no others. Safe to call again.

    Args:
        classes: returns the class of each architecture, once the warning comes.
    """
    logger = logging.getLogger(_LOGGER)
    if not any(isinstance(each, _OursAreMeant) for each in logger.filters):
        logger.addFilter(_OursAreMeant(classes))
