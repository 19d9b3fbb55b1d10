"""Check a prompt with pruned images or videos, after vLLM has inserted its placeholders."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.positions import MOST
from vllm_pruner.prompt.refusal import refusal
from vllm_pruner.settings.keys import KEY

if TYPE_CHECKING:
    from vllm.inputs import MultiModalInput

    from vllm_pruner.layout.layout import Layout
    from vllm_pruner.prompt.asked import Asked

__all__ = [
    "check_counts",
    "check_in_tree",
    "check_length",
    "check_marks",
    "check_neighbours",
    "check_reach",
    "unplaced",
]

_NAMED = {"image": "an image", "video": "a video"}


def check_counts(asked: Asked, separators: Sequence[int]) -> None:
    """Compare the prompt's placeholders with the counts by which the model will select.

    Args:
        asked: the images or videos, with their numbers of placeholders in `kept`.
        separators: each item's placeholders for the model's own rows; see `Family.separators`.

    Raises:
        RuntimeError: they differ, so this vLLM builds prompts in another way.
    """
    for config, original, more, placed in zip(
        asked.configs, asked.tokens, separators, asked.kept, strict=True
    ):
        if original is None:
            continue
        kept = config.keep_count(original) + more
        if placed != kept:
            raise RuntimeError(
                f"vtprune: vLLM placed {placed} visual tokens of one {asked.modality} in the "
                f"prompt; allowed: the {kept} that are kept"
            )


def unplaced() -> Exception:
    """Return the refusal of a prompt that has no place for one of its images or videos."""
    return refusal(
        "the prompt has no place for an image or a video: the chat template left it out, or "
        "truncate_prompt_tokens cut it off; allowed: each in a message of a role whose images the "
        "template takes, such as user, and no truncation",
        parameter="messages",
    )


def check_reach(layouts: Sequence[Layout], rows: Sequence[int], others: Sequence[int]) -> None:
    """Refuse videos whose positions or number of rows do not fit into two digits of
    `layout.positions`.

    Args:
        layouts: the layout of each video.
        rows: how many rows the decoder gets of each.
        others: how many of these are of the tokens between joined frames.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    for layout, count, between in zip(layouts, rows, others, strict=True):
        end = layout.reach(between) if isinstance(layout, GridLayout) else 0
        if max(count, end) > MOST:
            raise refusal(
                f"{KEY}: a video has {count} rows and lasts {end:.0f} positions; allowed: "
                f"{MOST} of each, or {KEY} video_rate 0",
                parameter="messages",
            )


def check_in_tree(
    output: MultiModalInput, layout_of: Callable[[Mapping[str, Any]], Layout]
) -> None:
    """Refuse videos that vLLM prunes and whose positions or number of rows do not fit into two
    digits of `layout.positions`.

    Args:
        output: the prompt.
        layout_of: returns the layout of a processed video, given its fields.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    places = output["mm_placeholders"].get("video", ())
    items = output["mm_kwargs"].require_data()["video"] if places else ()
    for place, item in zip(places, items, strict=True):
        grid = layout_of(item.get_data())
        assert isinstance(grid, GridLayout)
        end = place.length + grid.frames * max(grid.rows, grid.columns, grid.pace)
        if end > MOST:
            raise refusal(
                f"{KEY}: a video of {grid.frames} frames of {grid.rows} x {grid.columns} tokens "
                f"takes up to {end:.0f} positions; allowed: {MOST}, with fewer or smaller frames",
                parameter="messages",
            )


def check_length(output: MultiModalInput, kept: int, most: int) -> None:
    """Refuse a prompt that is too long for the model, with the number of visual tokens that would
    fit. A prompt whose text alone is too long is left to vLLM.

    Args:
        output: the prompt; its only items are images.
        kept: visual tokens of its images.
        most: most tokens of prompt and answer together.

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


def check_neighbours(output: MultiModalInput, item_tokens: Container[int]) -> None:
    """Refuse adjacent images or videos and a prompt that ends in one, which no chat template
    produces. A token that stands for an image or video does not count as text between them.

    With M-RoPE, a pruned image's positions are counted from the text before it, and the answer's
    from the text after it.

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
    if len(prompt) in ends or starts & ends or any(token in item_tokens for token in around):
        raise refusal(
            f"{KEY}: prompt has an image or video with no token between it and the next one, real "
            f"or spelled, or at its end; allowed: the model's own chat template, or {KEY} rate 0",
            parameter="prompt",
        )


def check_marks(
    output: MultiModalInput, marks: Mapping[int, str], modalities: Sequence[str]
) -> None:
    """Refuse marks outside of the images or videos that have them: the model's half tells frames
    from images by them, or counts positions from them.

    Args:
        output: the prompt.
        marks: the text of each mark, by token id.
        modalities: of the items that have them, `image` or `video`.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    prompt: Any = output["prompt_token_ids"]
    places = [place for each in modalities for place in output["mm_placeholders"].get(each, ())]
    for mark, text in marks.items():
        inside = sum(prompt[each.offset :][: each.length].count(mark) for each in places)
        if prompt.count(mark) != inside:
            named = " or ".join(_NAMED[each] for each in modalities)
            raise refusal(
                f"{KEY}: prompt has a {text} that is not of {named}; allowed: the model's own chat "
                f"template and no such text, or {KEY} rate 0",
                parameter="prompt",
            )
