"""Errors about settings, as data that each edge renders with its own names for the keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from vllm_pruner.settings.advice import METHOD, RATE, VIDEO_RATE

__all__ = ["ConfigError", "SettingError", "shown"]

_KEYS: Mapping[str, str] = MappingProxyType({})
_LONGEST = 100


def shown(text: str) -> str:
    """Return text from a client or operator, cut to a length that fits a sentence."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one sentence fit for an operator or
    client."""

    def at_start(self, names: Mapping[str, str] = _KEYS) -> str:
        """Return the sentence for an operator.

        Args:
            names: the operator's names of keys, such as `--prune-rate`; others keep their own.
        """
        return str(self)

    def at_request(self) -> str:
        """Return the sentence for a client."""
        return str(self)


@dataclass(eq=False)
class SettingError(ConfigError):
    """A key with a value that cannot be used."""

    key: str
    """Dotted for a key inside another, such as `limits.max_rate`."""

    value: str
    """The value as text, before `shown` cuts it."""

    allowed: str | None
    """The allowed values; None if `fault` names them."""

    fault: str = ""
    """What is wrong with the value, if that does not follow from what is allowed. It continues the
    sentence after the value: ", which ...", " but ..."."""

    beside: tuple[str, str] | None = None
    """A second key and its value, if the two exclude each other."""

    by: str | None = None
    """The operator's key that sets the bounds, if the value is otherwise valid."""

    advice: str = ""
    """What was probably meant, if that is clear; see `settings.advice`."""

    def __str__(self) -> str:
        return self.at_start()

    def at_start(self, names: Mapping[str, str] = _KEYS) -> str:
        bounds = "" if self.by is None else f", by {names.get(self.by, self.by)}"
        return self._render(names, "allowed", bounds)

    def at_request(self) -> str:
        return self._render(_KEYS, "allowed" if self.by is None else "allowed here", "")

    def _render(self, names: Mapping[str, str], allowed: str, bounds: str) -> str:
        pairs = [(self.key, self.value), *([self.beside] if self.beside else [])]
        subject = " and ".join(
            f"{_rename(shown(key), names)} is {shown(value)}" for key, value in pairs
        )
        end = "" if self.allowed is None else f"; {allowed}: {self.allowed}{bounds}"
        advice = self.advice
        for key in (METHOD, RATE, VIDEO_RATE):
            advice = advice.replace(key, _rename(key.strip("{}"), names))
        return f"{subject}{self.fault}{end}{advice and f'; {advice}'}"


def _rename(key: str, names: Mapping[str, str]) -> str:
    head, dot, inside = key.partition(".")
    return f"{names.get(head, head)}{dot}{inside}"
