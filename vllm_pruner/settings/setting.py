"""The name and explanation of each key of the settings, for every place that shows them.

They follow from the key's field: its name, type, default and the docstring below it, which pydantic
takes as the field's description (`use_attribute_docstrings`). So the flag of a new key, its help
and its row in `docs/settings.md` (`environment/settings_table.py`) need nothing but the field. If
the default is not the field's own, the docstring ends in a sentence "Default: ...".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

__all__ = ["Setting", "flag", "settings_of"]

_METAVARS = {"number": "R", "integer": "N", "string": "NAME", "boolean": "BOOL"}
_DEFAULT = "Default: "


def flag(key: str) -> str:
    """Return the flag of `vllm serve` that sets a key."""
    return f"--prune-{key.replace('_', '-')}"


@dataclass(frozen=True, slots=True)
class Setting:
    """One key."""

    key: str

    type: str
    """JSON's name for the type of its values other than null."""

    about: str
    """What it does: one paragraph of sentences."""

    default: str
    """The default, as text; empty if there is none."""

    explains_default: bool
    """Whether `default` is prose from the docstring, not a value that can be typed."""

    allowed: tuple[str, ...]
    """Its values, if it is an enumeration."""

    keys: Mapping[str, str]
    """The keys inside a value and what each does, if it is an object with known keys."""

    @property
    def metavar(self) -> str:
        """The placeholder of the flag's value in the help."""
        return _METAVARS.get(self.type, "JSON")

    @property
    def help(self) -> str:
        """The help of the flag."""
        keys = ", ".join(f"{key} ({_inside(text)})" for key, text in self.keys.items())
        parts = [
            self.about,
            f"Keys: {keys}." if keys else "",
            f"Allowed: {', '.join(self.allowed)}." if self.allowed else "",
            f"{_DEFAULT}{self.default}." if self.default else "",
        ]
        return " ".join(filter(None, parts)).replace("`", "")


def settings_of(model: type[BaseModel]) -> tuple[Setting, ...]:
    """Return the keys of a model, in the order of its fields."""
    schema = model.model_json_schema()
    inner = schema.get("$defs", {})
    return tuple(_setting(model, key, each, inner) for key, each in schema["properties"].items())


def _setting(
    model: type[BaseModel], key: str, schema: Mapping[str, Any], inner: Mapping[str, Any]
) -> Setting:
    value = _value(schema, inner)
    about, _, default = _paragraph(schema).partition(_DEFAULT)
    typed = model.model_fields[key].get_default(call_default_factory=True)
    return Setting(
        key,
        value.get("type", ""),
        about.strip(),
        default.removesuffix(".") or _text(typed),
        explains_default=bool(default),
        allowed=tuple(map(str, value.get("enum", ()))),
        keys={name: _paragraph(each) for name, each in value.get("properties", {}).items()},
    )


def _paragraph(schema: Mapping[str, Any]) -> str:
    return " ".join(schema.get("description", "").split())


def _inside(text: str) -> str:
    """Return a sentence in the form of a clause."""
    return (text[:1].lower() + text[1:]).removesuffix(".")


def _value(schema: Mapping[str, Any], inner: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of the values other than null."""
    either: list[dict[str, Any]] = schema.get("anyOf", [schema])
    (found,) = [each for each in either if each.get("type") != "null"]
    return inner[found["$ref"].rpartition("/")[2]] if "$ref" in found else found


def _text(default: object) -> str:
    """Return a field's default as it would be typed."""
    if isinstance(default, BaseModel):
        default = default.model_dump(exclude_none=True)
    if default is None or isinstance(default, str):
        return default or ""
    return json.dumps(default)
