"""Check a video's size before its frames are decoded.

Replaces: `OpenCVVideoBackendMixin.read_frames`, with which every loader of our families reads the
frames that it has chosen, unless `--media-io-kwargs` names another `backend` than OpenCV.
Why: a file of a few kilobytes may hold frames enough to fill the memory, and vLLM decodes them
before a processor sees the video. vLLM's own bound is on a single frame.
Relies on: the file being open, with width and height from its header, in which all frames have to
fit; and no frame being kept that is not in `frame_idx`.
vLLM versions: 0.32 and 0.33. In 0.31 the processor refuses the video once it is decoded.
Goes when: vLLM asks a processor or a plugin which sizes it accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from vllm_pruner.compat.patching import Patch, apply
from vllm_pruner.compat.versions import at_least

__all__ = ["patch_video_header"]

_Check = Callable[[int, tuple[int, int]], None]


def patch_video_header(check: _Check) -> None:
    """Check every video file that OpenCV reads. Safe to call again.

    Args:
        check: called with the number of frames that will be kept, and their width and height;
            raises the error that the client gets.

    Raises:
        RuntimeError: this vLLM lacks the method.
    """
    if not at_least((0, 32)):
        return
    from vllm.multimodal.video_decoders.opencv import OpenCVVideoBackendMixin

    apply(Patch(OpenCVVideoBackendMixin, "read_frames", partial(_checked, check)))


def _checked(check: _Check, read: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `read_frames` that checks the open file first."""

    def read_frames(cls: Any, cap: Any, frame_idx: Sequence[int], *args: Any, **kw: Any) -> Any:
        import cv2

        width, height = cap.get(cv2.CAP_PROP_FRAME_WIDTH), cap.get(cv2.CAP_PROP_FRAME_HEIGHT)
        check(len({*frame_idx}), (int(width), int(height)))
        return read(cls, cap, frame_idx, *args, **kw)

    return read_frames
