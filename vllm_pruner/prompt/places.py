"""What is checked of a prompt whose images are pruned, once its placeholders are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vllm_pruner.prompt.refusal import refusal
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.keys import KEY

if TYPE_CHECKING:
    from vllm.inputs import MultiModalInput

__all__ = ["check_counts", "check_length", "check_neighbours", "check_video_marks"]


def check_counts(
    configs: Sequence[PruneConfig],
    tokens: Sequence[int | None],
    separators: Sequence[int],
    output: MultiModalInput,
) -> None:
    """Compare the prompt's placeholders with the counts that the model will select by.

    Args:
        configs: the settings of each image.
        tokens: of each, unpruned; None if nothing says it.
        separators: placeholders of each beside the kept ones; see `Family.separators`.
        output: the prompt.

    Raises:
        RuntimeError: they differ, so this vLLM makes prompts in another way.
    """
    for config, original, more, place in zip(
        configs, tokens, separators, output["mm_placeholders"]["image"], strict=True
    ):
        if original is None:
            continue
        kept = config.keep_count(original) + more
        if place.get_num_embeds() != kept:
            raise RuntimeError(
                f"vtprune: vLLM placed {place.get_num_embeds()} visual tokens of an image in the "
                f"prompt; allowed: the {kept} that are kept"
            )


def check_length(output: MultiModalInput, kept: int, most: int) -> None:
    """Refuse a prompt that the model has no room for, with the number of visual tokens that it has
    room for beside the rest; vLLM refuses a prompt whose rest alone is too long.

    Args:
        output: the prompt.
        kept: visual tokens of its images.
        most: tokens of prompt and answer at most.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    length, images = len(output["prompt_token_ids"]), len(output["mm_placeholders"]["image"])
    room = most - 1 - (length - kept)
    if kept > room >= images:
        raise refusal(
            f"{KEY}: prompt has {length} tokens, {kept} of them of {images} images, for a model of "
            f"{most} with room for an answer; allowed: request_tokens {room} or less"
        )


def check_neighbours(output: MultiModalInput, image_token: int) -> None:
    """Refuse images without text between and behind them, as no chat template makes them; a token
    that stands for an image is no text.

    Where positions have several dimensions, those of a pruned image count from the text before it,
    and those of the answer from the text behind it.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    prompt: Any = output["prompt_token_ids"]
    spans = [
        (place.offset, place.offset + place.length)
        for each in output["mm_placeholders"].values()
        for place in each
    ]
    starts, ends = map(set, zip(*spans, strict=True))
    around = {prompt[end] for end in ends - {len(prompt)}}
    around |= {prompt[start - 1] for start in starts - {0}}
    if len(prompt) in ends or starts & ends or image_token in around:
        raise refusal(
            f"{KEY}: prompt has an image with no token between it and the next one, real or "
            f"spelled, or at its end; allowed: the model's own chat template, or {KEY} rate 0",
            parameter="prompt",
        )


def check_video_marks(output: MultiModalInput, marks: Mapping[int, str]) -> None:
    """Refuse tokens around a video where none is: the model's half tells frames from images by
    them.

    Args:
        output: the prompt.
        marks: the tokens and their ids.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    prompt: Any = output["prompt_token_ids"]
    videos = output["mm_placeholders"].get("video", ())
    for mark, text in marks.items():
        inside = sum(prompt[each.offset :][: each.length].count(mark) for each in videos)
        if prompt.count(mark) != inside:
            raise refusal(
                f"{KEY}: prompt has a {text} that is not of a video; allowed: the model's own chat "
                f"template and no such text, or {KEY} rate 0",
                parameter="prompt",
            )
