"""Check the sizes of images and videos against the operator's limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from PIL import Image

from vllm_pruner.prompt.refusal import settings_refusal
from vllm_pruner.settings.bounds import size_fault, video_size_fault
from vllm_pruner.settings.errors import SettingError
from vllm_pruner.settings.limits import Limits

__all__ = ["check_file", "check_sizes", "check_video_file", "check_videos", "limit_files"]

_CHANNELS = (1, 3, 4)

_LIMITS: list[Limits] = []
"""The limits of each engine in this process. A server has one engine; offline there may be several,
and when a file is read it is not known for which."""


def limit_files(limits: Limits) -> None:
    """Let `check_file` and `check_video_file` allow what these limits allow."""
    if limits not in _LIMITS:
        _LIMITS.append(limits)


def check_file(size: tuple[int, int] | None) -> None:
    """Refuse a file that no engine in this process accepts; see `size_fault`.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    _refuse_by_all(lambda limits: size_fault(limits, size))


def check_video_file(frames: int, size: tuple[int, int]) -> None:
    """Refuse a video that no engine in this process accepts; see `video_size_fault`.

    Args:
        frames: how many frames will be kept.
        size: width and height of each in pixels.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    _refuse_by_all(lambda limits: video_size_fault(limits, frames, size))


def _refuse_by_all(find: Callable[[Limits], SettingError | None]) -> None:
    faults = [fault for limits in _LIMITS if (fault := find(limits))]
    if faults and len(faults) == len(_LIMITS):
        raise settings_refusal(faults[-1])


def check_sizes(limits: Limits, sizes: Iterable[tuple[int, int] | None]) -> None:
    """Refuse images that an engine does not accept, whether they came as files or not.

    Args:
        limits: the engine's limits.
        sizes: width and height of each image in pixels; None if not known.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    for size in sizes:
        if size is not None and (fault := size_fault(limits, size)):
            raise settings_refusal(fault)


def check_videos(limits: Limits, videos: Iterable[Any]) -> None:
    """Refuse videos that an engine does not accept, whether they came as files or not.

    Args:
        limits: the engine's limits.
        videos: vLLM's items: the frames of each, with or without their facts; None if a cache has
            the video.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    for video in videos:
        frames = video[0] if isinstance(video, tuple) else video
        if frames is None or not len(frames):
            continue
        first, count = frames[0], len(frames)
        width, height = first.size if isinstance(first, Image.Image) else _size(first.shape)
        if fault := video_size_fault(limits, count, (width, height)):
            raise settings_refusal(fault)


def _size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return width and height of an array whose channels are first or last."""
    height, width = shape[:2] if shape[-1] in _CHANNELS else shape[-2:]
    return width, height
