"""What a prompt of a pruned image must not have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from vllm.exceptions import VLLMValidationError
from vllm.multimodal.inputs import PlaceholderRange

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.prompt.asked import Asked
from vllm_pruner.prompt.places import (
    check_counts,
    check_in_tree,
    check_length,
    check_marks,
    check_neighbours,
    check_reach,
)
from vllm_pruner.settings.config import PruneConfig

TEXT, IMAGE, START, END = 1, 9, 5, 6
MARKS = {START: "<|begin_of_video|>", END: "<|end_of_video|>"}
VIDEO = [START, IMAGE, IMAGE, TEXT, IMAGE, IMAGE, END]


def _output(prompt: list[int], **places: list[tuple[int, int]]) -> Any:
    return {
        "prompt_token_ids": prompt,
        "mm_placeholders": {
            name: [PlaceholderRange(offset, length) for offset, length in each]
            for name, each in places.items()
        },
    }


def test_placeholders_are_as_many_as_the_model_will_fill() -> None:
    """Of an image with two separators, one without, and one whose number of tokens is not known."""
    config = PruneConfig.parse({"rate": 0.75})
    check_counts(Asked("image", [config] * 3, [], [576, 100, None], [146, 25, 7]), [2, 0, 0])
    for placed in (145, 147):
        asked = Asked("image", [config] * 3, [], [576, 100, None], [placed, 25, 7])
        said = f"placed {placed} visual tokens of one image in the prompt; allowed: the 146 that"
        with pytest.raises(RuntimeError, match=said):
            check_counts(asked, [2, 0, 0])


def test_marks_of_videos_are_where_videos_are() -> None:
    prompt = [TEXT, *VIDEO, TEXT, IMAGE, TEXT, *VIDEO]
    check_marks(_output(prompt, image=[(9, 1)], video=[(1, 7), (11, 7)]), MARKS, ["video"])
    check_marks(_output([TEXT, IMAGE, TEXT], image=[(1, 1)]), MARKS, ["video"])


@pytest.mark.parametrize(
    "around", [([START], []), ([START], [END]), ([END], [START]), ([], [END])], ids=str
)
def test_a_mark_around_an_image_is_refused(around: tuple[list[int], list[int]]) -> None:
    before, behind = around
    prompt = [*VIDEO, TEXT, *before, IMAGE, IMAGE, *behind, TEXT]
    output = _output(prompt, image=[(8 + len(before), 2)], video=[(0, 7)])
    with pytest.raises(VLLMValidationError, match=r"prompt has a <\|\w+\|> that is not of a video"):
        check_marks(output, MARKS, ["video"])


def test_other_models_have_no_marks() -> None:
    check_marks(_output([START, IMAGE, END], image=[(1, 1)]), {}, ["video"])


@pytest.mark.parametrize(
    ("prompt", "images"),
    [
        ([TEXT, IMAGE], [(1, 1)]),
        ([TEXT, IMAGE, IMAGE, TEXT], [(1, 1), (2, 1)]),
        ([TEXT, IMAGE, IMAGE, TEXT], [(1, 1)]),
        ([IMAGE, IMAGE, IMAGE, TEXT], [(1, 2)]),
    ],
    ids=["end", "next", "spelled behind", "spelled before"],
)
def test_an_image_needs_text_around_it(prompt: list[int], images: list[tuple[int, int]]) -> None:
    with pytest.raises(VLLMValidationError, match="no token between it and the next one"):
        check_neighbours(_output(prompt, image=images), {IMAGE})


def test_text_around_images_is_enough() -> None:
    check_neighbours(_output([IMAGE, TEXT, IMAGE, IMAGE, TEXT], image=[(0, 1), (2, 2)]), {IMAGE})
    check_neighbours(_output([*VIDEO, TEXT, IMAGE, TEXT], image=[(8, 1)], video=[(0, 7)]), {IMAGE})


@pytest.mark.parametrize(
    ("kept", "most", "room"),
    [(4, 8, None), (4, 7, 3), (4, 5, None), (4, 4, None), (4, 6, 2)],
    ids=str,
)
def test_a_prompt_too_long_names_the_visual_tokens_that_fit(
    kept: int, most: int, room: int | None
) -> None:
    """Three tokens of text, and two images of two: what even one token an image does not fit into
    is left to vLLM."""
    output = _output([TEXT, IMAGE, IMAGE, TEXT, IMAGE, IMAGE, TEXT], image=[(1, 2), (4, 2)])
    if room is None:
        check_length(output, kept, most)
        return
    with pytest.raises(VLLMValidationError) as raised:
        check_length(output, kept, most)
    assert f"allowed: request_tokens {room} or less" in str(raised.value)


def test_a_video_that_no_digits_can_place_is_refused() -> None:
    apart = GridLayout(2, 3, 20_000, apart=True)
    check_reach([GridLayout(2, 2, 100, pace=655.35), apart, apart], [65_535] * 3, [0, 5_535, 0])
    for layout, rows, others in (
        (GridLayout(2, 2, 100, pace=656.0), 4, 0),
        (GridLayout(2, 2, 1), 65_536, 0),
        (apart, 5_540, 5_536),
    ):
        with pytest.raises(VLLMValidationError, match="allowed: 65535 of each, or vtprune video_r"):
            check_reach([layout], [rows], [others])


@pytest.mark.parametrize(("frames", "end"), [(7271, None), (7272, 65538), (8000, 72090)], ids=str)
def test_a_video_of_vllm_s_pruning_has_to_fit_into_two_digits(frames: int, end: int | None) -> None:
    item = SimpleNamespace(get_data=lambda: None)
    output = {
        **_output([TEXT, *[IMAGE] * 90, TEXT], video=[(1, 90)]),
        "mm_kwargs": SimpleNamespace(require_data=lambda: {"video": [item]}),
    }
    layout = GridLayout(6, 9, frames, 2.0)
    if end is None:
        check_in_tree(output, lambda _: layout)  # type: ignore[arg-type]
        return
    said = f"{frames} frames of 6 x 9 tokens takes up to {end} positions; allowed: 65535"
    with pytest.raises(VLLMValidationError, match=said):
        check_in_tree(output, lambda _: layout)  # type: ignore[arg-type]
