"""vLLM's own pruning of videos beside pruned images: every position that enters the language model.

The oracles are stock engines. For Qwen2.5-VL one with the same `video_pruning_rate`, where that one
can answer at all: in 0.32 an image soon behind a pruned video ends the engine, and a step that
begins within an image places it anew. For Qwen3-VL one without, whose positions are gathered at
the kept tokens: behind `<|vision_start|>`, which transformers 5 leaves in front of a video's first
time, vLLM's hook writes a video's positions too early.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from forked import run
from in_tree_record import CASES, TURNS, WHOLE, name
from media import clip, encode, image_part, noise, text_part, video_part
from nightly import NIGHTLY
from transformers import AutoConfig
from vllm_process import MODELS, environment
from vllm_server import Server

pytestmark = pytest.mark.server

BUDGETS = (WHOLE, 48, 7)
RATES = (0.0, 0.5)
RATE = 0.6
ANSWERED_BY_STOCK = ("a video", "an image", "an image before")
BY_WIDTH = "demo-qwen2.5"
"""Its hook has text continue behind the width of an image or video."""

Place = tuple[int, int, int]


NOTHING = 1e-17
"""A rate above 0 at which vLLM removes no token."""


class Recorded:
    """What the engines of a checkpoint did."""

    def __init__(self, checkpoint: str, method: str, folder: Path) -> None:
        self.checkpoint, self.method, self._folder = checkpoint, method, folder
        self.config: Any = AutoConfig.from_pretrained(MODELS / checkpoint)
        pruning = {"video_pruning_rate": RATE}
        if method != "evs":
            pruning["video_pruning_method"] = method  # type: ignore[assignment]
        ours = {"rate": 0.5, "video_rate": 0.0}
        said = self._record(pruning, ours, CASES, RATES, BUDGETS)
        self.found, self._kept, self._video = said["found"], said["kept"], said["video"]
        self.whole = self._record({}, None, CASES, [None], [WHOLE])["found"]
        if method == "evs":
            nothing = {"video_pruning_rate": NOTHING}
            said = self._record(nothing, ours, CASES, [0.0], [WHOLE, 48])
            self.nothing_removed = said["found"]
        self.stock: dict[str, Any] = {}
        if checkpoint == BY_WIDTH:
            said = self._record(pruning, None, ANSWERED_BY_STOCK, [None], [WHOLE])
            self.stock = said["found"]

    def _record(
        self, flags: Any, settings: Any, cases: Any, rates: Any, budgets: Any
    ) -> dict[str, Any]:
        options = {"flags": flags, "vtprune": settings, "cases": [*cases], "rates": [*rates]}
        script = Path(__file__).with_name("in_tree_record.py")
        done = run(
            [
                str(script),
                str(MODELS / self.checkpoint),
                json.dumps({**options, "budgets": budgets}),
            ],
            environment(VLLM_ENABLE_V1_MULTIPROCESSING="0"),
            self._folder,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("found ")]
        told: dict[str, Any] = json.loads(line.removeprefix("found "))
        return told

    @property
    def mask(self) -> list[bool]:
        """Which tokens vLLM kept of the clip, the same each time."""
        masks = self._kept["videos"]
        assert masks and all(mask == masks[0] for mask in masks)
        return list(masks[0])

    @property
    def first(self) -> tuple[int, int]:
        """Rows and columns of the first picture, which the case `an image before` has."""
        ids = self.whole[name("an image before", WHOLE, None, "cold")]["prompt"]
        tokens = ids.count(self.config.image_token_id)
        grids = {(rows, columns) for _, rows, columns, _ in self._kept["images"]}
        (grid,) = [grid for grid in grids if math.prod(grid) == tokens]
        return grid

    def expected(self, case: str, rate: float) -> list[Place]:
        """The positions of a pruned prompt and its answer: of the whole prompt, without those of
        tokens that are not kept."""
        prompt = self.whole[name(case, WHOLE, None, "cold")]["prompt"]
        places = list(self._by_width(prompt)) if self._by_own_rule else self._unpruned(case)
        left = [
            place for place, kept in zip(places, self._is_kept(prompt, rate), strict=True) if kept
        ]
        largest = max(max(place) for place in (left if self._by_own_rule else left[-1:]))
        return [*left, *[(number,) * 3 for number in range(largest + 1, largest + 7)]]

    @property
    def _by_own_rule(self) -> bool:
        return self.checkpoint == BY_WIDTH

    def _unpruned(self, case: str) -> list[Place]:
        record = self.whole[name(case, WHOLE, None, "cold")]
        return [(*place,) for _, place in record["places"]][: len(record["prompt"])]

    def _is_kept(self, prompt: list[int], rate: float) -> Iterator[bool]:
        of_video = iter(self.mask if self.config.video_token_id in prompt else ())
        for token, run_ in groupby(prompt):
            length = len(list(run_))
            if token == self.config.video_token_id:
                yield from (next(of_video) for _ in range(length))
            elif token == self.config.image_token_id and rate:
                kept = self._kept_of_image(length)
                yield from (place in kept for place in range(length))
            else:
                yield from [True] * length
        assert next(of_video, None) is None

    def _kept_of_image(self, tokens: int) -> set[int]:
        chosen = [
            kept for _, rows, columns, kept in self._kept["images"] if rows * columns == tokens
        ]
        assert chosen and all(kept == chosen[0] for kept in chosen)
        return {*chosen[0]}

    def _by_width(self, prompt: list[int]) -> Iterator[Place]:
        """Positions of the whole prompt as vLLM's hook counts them."""
        start = 0
        grids = {height * width: (1, height, width) for _, height, width, _ in self._kept["images"]}
        for token, run_ in groupby(prompt):
            length = len(list(run_))
            if token == self.config.image_token_id:
                frames, rows, columns = grids[length]
            elif token == self.config.video_token_id:
                frames, rows, columns = self._clip()
            else:
                yield from ((place,) * 3 for place in range(start, start + length))
                start += length
                continue
            pace = self.config.vision_config.tokens_per_second * int(self._video["seconds"])
            for number in range(length):
                frame, place = divmod(number, rows * columns)
                row, column = divmod(place, columns)
                yield start + frame * pace, start + row, start + column
            start += columns

    def _clip(self) -> tuple[int, int, int]:
        """Frames, rows and columns of tokens."""
        frames, rows, columns = self._video["grid"]
        merge = self.config.vision_config.spatial_merge_size
        return frames, rows // merge, columns // merge


@pytest.fixture(
    scope="module",
    params=[
        ("demo-qwen2.5", "evs"),
        ("demo-qwen3", "evs"),
        pytest.param(("demo-qwen3", "vidcom2"), marks=NIGHTLY),
    ],
    ids=" ".join,
)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(*request.param, tmp_path_factory.mktemp("in-tree"))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("case", CASES)
def test_each_token_stands_where_it_would_in_the_whole_prompt(
    recorded: Recorded, case: str, budget: int, rate: float
) -> None:
    expected = recorded.expected(case, rate)
    for turn in TURNS:
        record = recorded.found[name(case, budget, rate, turn)]
        found = {place: (*position,) for place, position in record["places"]}
        assert len(record["prompt"]) + len(record["answer"]) == len(expected)
        assert found == {place: expected[place] for place in found}
        assert [*found] == [*range(min(found), len(expected) - 1)]
        assert (min(found) == 0) == (turn == "cold")


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("case", CASES)
def test_answers_do_not_depend_on_steps_or_caches(
    recorded: Recorded, case: str, rate: float
) -> None:
    first = recorded.found[name(case, WHOLE, rate, "cold")]
    for budget in BUDGETS:
        for turn in TURNS:
            other = recorded.found[name(case, budget, rate, turn)]
            assert other["answer"] == first["answer"]
            assert other["logprobs"] == pytest.approx(first["logprobs"], abs=2e-3)


@pytest.mark.parametrize("case", ANSWERED_BY_STOCK)
def test_unpruned_images_leave_it_to_the_bit_as_it_is(recorded: Recorded, case: str) -> None:
    """Of Qwen3-VL's only where there is no video, which vLLM itself misplaces."""
    source = recorded.stock
    if not source:
        if case != "an image":
            pytest.skip("vLLM misplaces the video")
        source = recorded.whole
    for turn in TURNS:
        assert recorded.found[name(case, WHOLE, 0.0, turn)] == source[name(case, WHOLE, None, turn)]


def test_images_and_videos_are_pruned(recorded: Recorded) -> None:
    whole, half, none = (
        len(found["prompt"])
        for found in (
            recorded.whole[name("an image before", WHOLE, None, "cold")],
            recorded.found[name("an image before", WHOLE, 0.5, "cold")],
            recorded.found[name("an image before", WHOLE, 0.0, "cold")],
        )
    )
    assert whole - none == recorded.mask.count(False) == math.ceil(RATE * len(recorded.mask))
    assert none - half == math.prod(recorded.first) / 2


@pytest.mark.parametrize("case", CASES)
def test_where_vllm_removes_nothing_answers_are_those_of_whole_videos(
    recorded: Recorded, case: str
) -> None:
    """Rows of text among those of a video, levels of DeepStack and all: of Qwen3-VL, since
    Qwen2.5-VL's text stands elsewhere."""
    if recorded.checkpoint == BY_WIDTH or recorded.method != "evs":
        pytest.skip("compared above")
    whole = recorded.whole[name(case, WHOLE, None, "cold")]
    for budget in (WHOLE, 48):
        for turn in TURNS:
            found = recorded.nothing_removed[name(case, budget, 0.0, turn)]
            assert found["answer"] == whole["answer"]
            assert found["logprobs"] == pytest.approx(whole["logprobs"], abs=2e-3)


IMAGE = image_part(encode(noise(300, 300)), "image/png")
VIDEO = video_part(clip(8))
BOTH = [VIDEO, text_part("Then this:"), IMAGE, text_part("What is it?")]


@pytest.fixture(scope="module")
def shared_out(start_shared: Callable[..., Server]) -> Server:
    """vLLM prunes videos, vtprune images."""
    flags = ["--plugin", "vtprune", "--prune-rate", "0.5", "--prune-video-rate", "0"]
    return start_shared("in-tree", *flags, "--video-pruning-rate", "0.6", model="demo-qwen3")


def test_the_log_says_who_prunes_what(shared_out: Server) -> None:
    line = "vtprune: vLLM prunes videos (evs, video_pruning_rate 0.6), vtprune images only"
    assert line in shared_out.log


def test_usage_counts_what_vtprune_prunes(shared_out: Server) -> None:
    videos = shared_out.metrics("vtprune_videos_total")
    half, whole = (shared_out.ask(BOTH, vtprune=asked)["usage"] for asked in ({}, {"rate": 0}))
    counts = half["visual_tokens"]
    assert counts["kept"] == round(counts["original"] / 2) and "video" not in counts
    assert whole["prompt_tokens"] - half["prompt_tokens"] == counts["original"] - counts["kept"]
    alone = shared_out.ask([VIDEO, text_part("What happens?")])["usage"]
    assert "visual_tokens" not in alone
    of_image = shared_out.ask([IMAGE, text_part("What is it?")])["usage"]
    assert of_image["visual_tokens"] == counts
    assert shared_out.metrics("vtprune_videos_total") == videos


@pytest.mark.parametrize(
    ("asked", "start"),
    [
        ({"video_rate": 0.5}, "vtprune: video_rate is 0.5, but vLLM prunes the videos of this "),
        ({"video_method": "evs"}, "vtprune: video_method is 'evs', but vLLM prunes the videos of "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("content", [BOTH, "No video."], ids=["with a video", "without"])
def test_a_request_that_has_us_prune_videos_is_refused(
    shared_out: Server, asked: dict[str, Any], start: str, content: Any
) -> None:
    answer = shared_out.post(content, vtprune=asked)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "vtprune" and error["message"].startswith(start)
    assert "by evs at 0.6; allowed: " in error["message"]
    assert shared_out.post(content, vtprune={"video_rate": 0}).status_code == 200


def test_the_image_beside_a_video_is_explained(shared_out: Server) -> None:
    messages = [{"role": "user", "content": BOTH}]
    answer = shared_out.client.post("/vtprune/explain", json={"messages": messages})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["images"]) == 1 and not answer.json()["videos"]
    for card in shared_out.client.get("/vtprune/methods").json()["video_methods"]:
        assert "vLLM prunes the videos of this server" in card["refused"]
