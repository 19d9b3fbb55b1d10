"""Check settings against the operator's limits."""

from __future__ import annotations

from collections.abc import Sequence

from vllm_pruner import methods
from vllm_pruner.settings import advice
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import SettingError
from vllm_pruner.settings.limits import MOST_PIXELS, Limits

__all__ = [
    "clamp",
    "count_fault",
    "fault",
    "fault_on",
    "method_fault",
    "request_fault",
    "size_fault",
    "video_method_fault",
    "video_rate_fault",
    "video_size_fault",
]


def clamp(limits: Limits, rate: float) -> float:
    """Return `rate` clamped to the limits."""
    most = rate if limits.max_rate is None else min(rate, limits.max_rate)
    return max(most, limits.min_rate)


def method_fault(limits: Limits, name: str) -> SettingError | None:
    """Return what is wrong with a method, or None."""
    if limits.methods is not None and name not in limits.methods:
        found = _error("method", repr(name), ", ".join(limits.methods) or "none")
        found.advice = advice.of_name(name, limits.methods)
        return found
    return None


def video_method_fault(limits: Limits, name: str) -> SettingError | None:
    """Return what is wrong with a request's method for videos, or None."""
    allowed = [*methods.built_in(methods.VIDEO_GROUP), *(limits.methods or methods.names())]
    if name not in allowed:
        found = _error("video_method", repr(name), ", ".join(allowed))
        found.advice = advice.of_name(name, allowed, advice.VIDEO_RATE)
        return found
    return None


def video_rate_fault(limits: Limits, config: PruneConfig) -> SettingError | None:
    """Return what is wrong with the rate of videos, or None."""
    rate = config.video_rate
    if rate is not None and clamp(limits, rate) != rate:
        return _error("video_rate", f"{rate:g}", _rates(limits))
    return None


def fault(limits: Limits, config: PruneConfig) -> SettingError | None:
    """Return what is wrong with settings, for any image, or None."""
    if found := method_fault(limits, config.method):
        return found
    if config.rate is not None and clamp(limits, config.rate) != config.rate:
        return _error("rate", f"{config.rate:g}", _rates(limits))
    if found := video_rate_fault(limits, config):
        return found
    if config.tokens is not None and config.tokens < limits.min_tokens:
        return _error("tokens", str(config.tokens), f"{limits.min_tokens} or more")
    return None


def fault_on(limits: Limits, config: PruneConfig, tokens: int) -> SettingError | None:
    """Return what is wrong with settings for an image of `tokens` visual tokens, or None."""
    if found := fault(limits, config):
        return found
    if config.request_tokens is not None:
        return None  # `request_fault` checks all images together
    return count_fault(limits, config, tokens, "an image")


def count_fault(limits: Limits, config: PruneConfig, tokens: int, what: str) -> SettingError | None:
    """Return what is wrong with the number of tokens that settings keep, or None.

    Args:
        limits: the operator's limits.
        config: the settings.
        tokens: visual tokens of the image or video, unpruned.
        what: "an image" or "a video", for the error.
    """
    keep = config.keep_count(tokens)
    if keep < min(limits.min_tokens, tokens):
        why = f", which keeps {keep} of {what}'s {tokens} tokens"
        return _error("rate", f"{config.rate:g}", f"{limits.min_tokens} or more", why)
    removed = 1 - keep / tokens
    if config.tokens is not None and clamp(limits, removed) != removed:
        why = f", which removes {removed:.4f} of {what}'s {tokens}"
        return _error("tokens", str(config.tokens), _rates(limits), why)
    return None


def request_fault(limits: Limits, budget: int, tokens: Sequence[int]) -> SettingError | None:
    """Return what is wrong with a budget for all images of a request, or None.

    Args:
        limits: the operator's limits.
        budget: visual tokens kept of all images together.
        tokens: visual tokens of each image, unpruned.
    """
    least = sum(min(limits.min_tokens, count) for count in tokens)
    key, value = "request_tokens", str(budget)
    if budget < least:
        why = f", for {len(tokens)} images"
        by = "limits" if limits.min_tokens > 1 else None
        return SettingError(key, value, f"{least} or more", why, by=by)
    total = sum(tokens)
    removed = 1 - min(budget, total) / total if total else 0.0
    if clamp(limits, removed) != removed:
        why = f", which removes {removed:.4f} of {total} tokens"
        return _error(key, value, _rates(limits), why)
    return None


def size_fault(limits: Limits, size: tuple[int, int] | None) -> SettingError | None:
    """Return what is wrong with an image's size, or None.

    Args:
        limits: the operator's limits.
        size: width and height in pixels; None for more pixels than any limit allows.
    """
    width, height = size or (MOST_PIXELS + 1, 1)
    if width * height > limits.max_pixels:
        value = f"{width} x {height} pixels" if size else f"more than {MOST_PIXELS} pixels"
        return _error("image", value, f"max_pixels {limits.max_pixels}")
    if max(width, height) > limits.max_side_ratio * min(width, height):
        value = f"{width} x {height} pixels"
        return _error("image", value, f"max_side_ratio {limits.max_side_ratio:g}")
    return None


def video_size_fault(limits: Limits, frames: int, size: tuple[int, int]) -> SettingError | None:
    """Return what is wrong with a video's size, or None.

    Args:
        limits: the operator's limits.
        frames: how many frames were decoded.
        size: width and height of each in pixels.
    """
    width, height = size
    value = f"{frames} frames of {width} x {height} pixels"
    if found := size_fault(limits, size):
        return _error("video", value, found.allowed or "")
    if frames * width * height > limits.max_video_pixels:
        return _error("video", value, f"max_video_pixels {limits.max_video_pixels}")
    return None


def _error(key: str, value: str, allowed: str, why: str = "") -> SettingError:
    return SettingError(key, value, allowed, why, by="limits")


def _rates(limits: Limits) -> str:
    most = "below 1" if limits.max_rate is None else f"{limits.max_rate:g}"
    return f"rates from {limits.min_rate:g} to {most}"
