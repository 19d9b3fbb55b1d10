"""What is wrong with a setting."""

from __future__ import annotations

__all__ = ["ConfigError"]


class ConfigError(ValueError):
    """A setting that cannot be used; the message is one sentence fit for an operator or client."""
