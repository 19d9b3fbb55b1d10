"""What the thinkers of Qwen-Omni have in common: images and videos as Qwen-VL's, audio beside.

Follows `vllm/model_executor/models/qwen2_5_omni_thinker.py` of vLLM 0.32. Audio is vLLM's and stays
as it is. A video is one run of tokens, unless its audio is interleaved with it
(`use_audio_in_video`): then runs of both alternate with the seconds, and how many tokens each run
of the video keeps would have to be known before the tower has run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from vllm_pruner.families.qwen_grid import QWEN_VIDEOS, Pace, qwen_family, video_layout, videos
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.prompt.refusal import refusal
from vllm_pruner.settings.keys import KEY
from vllm_pruner.worker.mrope import MRopeModel

if TYPE_CHECKING:
    from vllm.multimodal.processing import ProcessorInputs

    from vllm_pruner.family import Family
    from vllm_pruner.prompt.asked import Asked
    from vllm_pruner.prompt.wanted import Wanted
    from vllm_pruner.tower import Tower

__all__ = ["OmniModel", "OmniProcessor", "omni_family"]

_INTERLEAVED = "use_audio_in_video"
"""The processor's argument that interleaves the audio of a video with it."""

_SECONDS = "second_per_grid_ts"
"""The field with the seconds that a frame lasts."""


def omni_family(name: str, tower: Callable[[Any], Tower], pace: Pace) -> Family:
    """Return the family of a Qwen-Omni thinker, whose tower vLLM has in no CUDA graphs.

    Args:
        name: the family's name.
        tower: see `Family.tower`.
        pace: returns the temporal positions of a frame; see `Pace`.
    """
    paced = replace(
        QWEN_VIDEOS,
        item_layout=partial(video_layout, pace=pace),
        items=partial(videos, pace=pace),
    )
    return replace(
        qwen_family(name, paced), tower=tower, captured=False, stock_captured=False, marks=()
    )


class OmniProcessor(PrunedProcessor):
    """A `PrunedProcessor` of a thinker.

    Own change: a video with its audio interleaved is refused unless it stays whole.
    """

    def _asked_of_videos(self, inputs: ProcessorInputs, wanted: Wanted) -> Asked:
        asked = super()._asked_of_videos(inputs, wanted)
        kwargs = self.info.ctx.get_merged_mm_kwargs(inputs.hf_processor_mm_kwargs)
        if asked.plans and not wanted.is_dummy and kwargs.get(_INTERLEAVED):
            raise refusal(
                f"{_INTERLEAVED} is {kwargs[_INTERLEAVED]!r}, but a video with audio between its "
                f"tokens cannot be pruned; allowed: {KEY} video_rate 0, which leaves videos whole, "
                f"or {_INTERLEAVED} false",
                parameter=_INTERLEAVED,
            )
        return asked


class OmniModel(MRopeModel):
    """An `MRopeModel` that is a thinker.

    Own change: what is parsed of videos has the seconds of a frame too, which say where frames
    stand.
    """

    def _parse_and_validate_video_input(self, **kwargs: object) -> Any:
        parsed = super()._parse_and_validate_video_input(**kwargs)
        if parsed is not None:
            setattr(parsed, _SECONDS, kwargs.get(_SECONDS))
        return parsed
