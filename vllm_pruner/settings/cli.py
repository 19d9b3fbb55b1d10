"""The flags that vtprune adds to `vllm serve`, and the settings made from them."""

from __future__ import annotations

import argparse
import json
from typing import Any

from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.server import ServerConfig
from vllm_pruner.settings.setting import flag, settings_of

__all__ = ["FLAGS", "add_arguments", "given", "settings"]

FLAGS = {key: flag(key) for key in ServerConfig.model_fields}
"""The flag of each key."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add vtprune's flags to vLLM's parser. Values are validated later, together.

    A flag that is not given leaves no attribute; else vLLM's help would show a default of None.
    """
    group = parser.add_argument_group(
        "vtprune", "Visual-token pruning: answer about images from a fraction of their tokens."
    )
    group.add_argument(
        "--plugin",
        choices=["vtprune"],
        default=argparse.SUPPRESS,
        help="Prune visual tokens. Without it nothing changes.",
    )
    for setting in settings_of(ServerConfig):
        text = setting.help.replace("%", "%%")  # argparse's own placeholders
        group.add_argument(
            FLAGS[setting.key], metavar=setting.metavar, default=argparse.SUPPRESS, help=text
        )


def given(args: argparse.Namespace) -> dict[str, str]:
    """Return the values of our flags on the command line, as typed, by key."""
    texts = {key: getattr(args, f"prune_{key}", None) for key in FLAGS}
    return {key: text for key, text in texts.items() if text is not None}


def settings(args: argparse.Namespace) -> dict[str, Any] | None:
    """Return the settings that the flags name, or None without `--plugin vtprune`.

    Raises:
        ConfigError: a value cannot be used; one sentence with the flag, the value and what is
            allowed.
    """
    texts = given(args)
    if getattr(args, "plugin", None) != "vtprune":
        if texts:
            raise ConfigError(f"{FLAGS[next(iter(texts))]} is given without --plugin vtprune")
        return None
    types = {setting.key: setting.type for setting in settings_of(ServerConfig)}
    named = {key: _value(types[key], text) for key, text in texts.items()}
    try:
        ServerConfig.check_early(named)
    except ConfigError as error:
        raise ConfigError(error.at_start(FLAGS)) from None
    return named


def _value(type_: str, text: str) -> Any:
    """Parse the value of a flag; text that cannot be parsed is left for validation to report."""
    if type_ == "string":
        return text
    try:
        return {"number": float, "integer": int}.get(type_, json.loads)(text)
    except ValueError:
        return text
