"""The command line: the flags that `vllm serve` gains, and the settings they stand for."""

from __future__ import annotations

import argparse
import json
from typing import Any

from vllm_pruner import methods
from vllm_pruner.settings.config import DEFAULT_RATE
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.server import ServerConfig

__all__ = ["FLAGS", "add_arguments", "settings"]

FLAGS = {
    "method": "--prune-method",
    "rate": "--prune-rate",
    "tokens": "--prune-tokens",
    "options": "--prune-options",
    "crop_budget": "--prune-crop-budget",
    "feature_cache_mb": "--prune-feature-cache-mb",
    "detail": "--prune-detail",
    "limits": "--prune-limits",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add vtprune's flags to vLLM's parser. Values are checked later, all in one place."""
    group = parser.add_argument_group(
        "vtprune", "Visual-token pruning: answer about images from a fraction of their tokens."
    )
    group.add_argument(
        "--plugin", choices=["vtprune"], help="Prune visual tokens. Without it nothing changes."
    )
    group.add_argument(
        "--prune-method",
        help=f"How tokens are chosen: {', '.join(methods.names())}. Default: vispruner.",
    )
    group.add_argument(
        "--prune-rate",
        metavar="R",
        help="Fraction of each image's visual tokens removed, from 0 (off) to below 1. "
        f"Default: 8/9 ({DEFAULT_RATE:.4f}), which keeps 64 of the 576 tokens of LLaVA-1.5; 1/2 "
        "for Qwen-VL.",
    )
    group.add_argument(
        "--prune-tokens", metavar="K", help="Visual tokens kept per image, instead of a rate."
    )
    group.add_argument(
        "--prune-options",
        metavar="JSON",
        help="Options of the method as a JSON object, such as '{\"important_ratio\": 0.75}'.",
    )
    group.add_argument(
        "--prune-crop-budget",
        metavar="HOW",
        help="joint: the crops of an image compete for one budget; per_crop: each has its share. "
        "Default: joint.",
    )
    group.add_argument(
        "--prune-feature-cache-mb",
        metavar="MB",
        help="Device memory for what the vision tower made of known images: another question, rate "
        "or method about one skips the tower. 0 turns it off. Default: 256.",
    )
    group.add_argument(
        "--prune-detail",
        metavar="JSON",
        help='Rates of OpenAI\'s image_url.detail. Default: \'{"low": 0.95, "high": 0.5}\'; '
        "auto has the server's own rate.",
    )
    group.add_argument(
        "--prune-limits",
        metavar="JSON",
        help="What a request may ask for: any of min_rate, max_rate, min_tokens (an image) and "
        "methods (a list), as a JSON object. Default: anything, with vtprune's own methods and the "
        "server's.",
    )


def settings(args: argparse.Namespace) -> ServerConfig | None:
    """Return the settings that the flags stand for, or None without `--plugin vtprune`.

    Raises:
        ConfigError: one sentence that names the flag, the value and what is allowed.
    """
    flags = {key: getattr(args, f"prune_{key}", None) for key in FLAGS}
    given = {key: text for key, text in flags.items() if text is not None}
    if getattr(args, "plugin", None) != "vtprune":
        if given:
            raise ConfigError(f"{FLAGS[next(iter(given))]} is given without --plugin vtprune")
        return None
    try:
        return ServerConfig.parse({key: _value(key, text) for key, text in given.items()})
    except ConfigError as error:
        raise ConfigError(error.at_start(FLAGS)) from None


def _value(key: str, text: str) -> Any:
    """Read one flag; what cannot be read is left as text, for the validation to name."""
    try:
        if key == "rate":
            return float(text)
        if key in ("tokens", "feature_cache_mb"):
            return int(text)
        if key in ("options", "detail", "limits"):
            return json.loads(text)
    except ValueError:
        pass
    return text
