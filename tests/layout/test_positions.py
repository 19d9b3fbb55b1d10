"""Positions of pruned prompts: after any prefix hit, in steps of any size, filled twice or once."""

from __future__ import annotations

from itertools import groupby

import pytest
import torch

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.placed_rows import (
    as_placed,
    placed_in,
    with_lumped_places,
    with_places,
)
from vllm_pruner.layout.positions import fill, split
from vllm_pruner.layout.unpruned_prompt import Run, unpruned

IMAGE, TEXT, VIDEO = 9, 1, 8
GRIDS = [(6, 9, 11), (300, 4, 260), (2, 2, 1), (2, 3, 1), (3, 3, 9)]
"""Rows, columns and kept tokens."""
CLIPS = [(3, 2, 3, 1.0, 9), (4, 3, 2, 2.5, 11), (1, 2, 3, 1.0, 1)]
"""Frames, rows, columns, pace and kept tokens."""


class Prompt:
    """Text, images of `GRIDS`, videos of `CLIPS`, a video and an image that keep everything. The
    token of videos may be that of images."""

    def __init__(self, seed: int, dtype: torch.dtype, video: int = VIDEO) -> None:
        self.video = video
        draw = torch.Generator().manual_seed(seed)
        self.ids = [TEXT, TEXT]
        self.rows: list[tuple[int, torch.Tensor]] = []
        media: list[Run] = []
        whole: list[torch.Tensor] = []
        images = [(GridLayout(*grid), keep) for *grid, keep in GRIDS]
        clips = [(GridLayout(*grid, frames, pace), keep) for frames, *grid, pace, keep in CLIPS]
        for layout, keep in [*images[:3], *clips, *images[3:]]:
            self._text(whole)
            kept = torch.randperm(layout.tokens, generator=draw)[:keep].sort().values
            features = torch.randn(1, keep, 5, generator=draw).to(dtype)
            token = video if layout.frames else IMAGE
            media.append(Run(len(self.ids), keep, [token] * layout.tokens))
            placed = placed_in(layout, layout, features, kept[None], ())[0]
            self.rows.append((len(self.ids), placed))
            self._media(whole, token, layout.places_at(torch.arange(layout.tokens), layout), kept)
        for token, is_image in ((video, video == IMAGE), (IMAGE, True)):
            self._text(whole)
            places = GridLayout(2, 3).places_at(torch.arange(6), GridLayout(2, 3))
            media.append(Run(len(self.ids), 6, [token] * 6))
            self.rows.append((len(self.ids), as_placed(torch.randn(6, 5).to(dtype), is_image)))
            self._media(whole, token, places, torch.arange(6))
        self._text(whole)
        self.expected = torch.cat([self._expected[0], *self._expected[1:]], dim=1)
        self.whole = unpruned(self.ids, media)
        self._stock = torch.cat(whole, dim=1)

    _expected: list[torch.Tensor]
    _next: int

    def _text(self, whole: list[torch.Tensor]) -> None:
        if not whole:
            self._expected, self._next = [], 0
            start = 0
        else:
            start = len(self.ids)
            self.ids += [TEXT, TEXT]
        length = len(self.ids) - start
        run = (self._next + torch.arange(length)).expand(3, -1)
        whole.append(run)
        self._expected.append(run)
        self._next += length

    def _media(
        self, whole: list[torch.Tensor], token: int, places: torch.Tensor, kept: torch.Tensor
    ) -> None:
        self.ids += [token] * len(kept)
        whole.append(self._next + places.T)
        self._expected.append(self._next + places.T[:, kept])
        self._next += int(places.max()) + 1

    def start(self) -> torch.Tensor:
        """The positions of a request that was just added."""
        return self._stock[:, self.whole.index].clone()

    def step(self, positions: torch.Tensor, computed: int, first: int, end: int) -> None:
        """Feed the media rows of `[first, end)`."""
        parts = []
        for offset, rows in self.rows:
            fed = rows[max(0, first - offset) : max(0, end - offset)]
            if len(fed):
                parts.append(split(fed)[1])
        if parts:
            runs: dict[int, list[tuple[int, int]]] = {IMAGE: [], VIDEO: [], TEXT: []}
            end_of_run = 0
            for token, run in groupby(self.ids):
                length = len(list(run))
                runs[token].append((end_of_run, length))
                end_of_run += length
            videos = None if self.video == IMAGE else runs[VIDEO]
            fill(positions, parts, runs[IMAGE], videos, computed)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("chunk", [1, 5, 7, 64, 1000])
@pytest.mark.parametrize("video", [VIDEO, IMAGE], ids=["a token each", "one token"])
def test_every_schedule_gives_the_positions_of_the_unpruned_prompt(
    video: int, chunk: int, dtype: torch.dtype
) -> None:
    prompt = Prompt(chunk, dtype, video)
    length = len(prompt.ids)
    hits = range(0, length - 1, 1 if chunk == 1000 else 23)
    for hit in hits:
        positions, seen = prompt.start(), torch.zeros(3, length, dtype=torch.int64)
        for computed in range(hit, length, chunk):
            end = min(length, computed + chunk)
            prompt.step(positions, computed, computed, end)
            seen[:, computed:end] = positions[:, computed:end]
            if end < length and chunk > 1:  # a drafter looks one token ahead
                prompt.step(positions, computed, computed + 1, end + 1)
        assert torch.equal(seen[:, hit:], prompt.expected[:, hit:]), hit


def test_a_request_that_was_thrown_out_is_filled_again() -> None:
    prompt = Prompt(0, torch.bfloat16)
    positions, length = prompt.start(), len(prompt.ids)
    for _ in range(2):
        for computed in range(0, length, 13):
            prompt.step(positions, computed, computed, min(length, computed + 13))
        assert torch.equal(positions, prompt.expected)


def test_text_needs_no_filling() -> None:
    prompt = Prompt(0, torch.bfloat16)
    is_text = torch.tensor(prompt.ids) == TEXT
    assert torch.equal(prompt.start()[:, is_text], prompt.expected[:, is_text])


def test_the_unpruned_prompt_has_each_image_whole() -> None:
    """And each video, with what is between its frames."""
    runs = [Run(2, 2, [9] * 5), Run(5, 3, [8, 8, 6, 7, 8, 8]), Run(9, 0, [8, 8])]
    whole = unpruned([1, 2, 9, 9, 3, 8, 8, 8, 4, 5], runs)
    assert whole.tokens == [1, 2, 9, 9, 9, 9, 9, 3, 8, 8, 6, 7, 8, 8, 4, 8, 8, 5]
    assert whole.index.tolist() == [0, 1, 2, 3, 7, 8, 9, 10, 14, 17]


def test_rows_are_what_they_were_before_the_digits() -> None:
    rows = torch.randn(1, 4, 3).bfloat16()
    places = torch.tensor([[[0, 0, 0], [0, 255, 256], [1, 257, 65535], [300, 4000, 7]]])
    found, digits = split(with_places(rows, places)[0])
    assert torch.equal(found, rows[0])
    assert (digits[:, -1] == 0).all()
    numbers = digits[:, :-1].long().unflatten(1, (5, 2))
    assert (numbers[..., 0] * 256 + numbers[..., 1]).tolist() == [
        [*place, number, 4] for number, place in enumerate(places[0].tolist())
    ]


@pytest.mark.parametrize("layout", [GridLayout(7, 300), GridLayout(2, 3, 3, 2.5)], ids=str)
def test_places_looked_up_are_those_computed(layout: GridLayout) -> None:
    index = torch.stack([torch.randperm(layout.tokens)[:7].sort().values for _ in range(3)])
    rows = torch.randn(3, 7, 2)
    runs = (4, 0, 3) if layout.frames else ()
    for within in (layout, layout.compact(7)):
        places, is_image = layout.places_at(index, within), not layout.frames
        expected = with_places(rows, places, is_image, runs)
        assert torch.equal(placed_in(layout, within, rows, index, runs), expected)


@pytest.mark.parametrize("grid", [(1, 1), (1, 9), (9, 1), (3, 5), (16, 16), (7, 23)])
def test_a_compact_grid_holds_what_is_kept_and_is_no_larger(grid: tuple[int, int]) -> None:
    layout = GridLayout(*grid)
    sides = []
    for keep in range(1, layout.tokens + 1):
        small = layout.compact(keep)
        assert small.tokens >= keep
        assert 1 <= small.rows <= layout.rows and 1 <= small.columns <= layout.columns
        places = layout.places_at(torch.arange(layout.tokens), small)
        assert places[:, 1].max() < small.rows and places[:, 2].max() < small.columns
        assert torch.equal(places[:, 0], torch.zeros(layout.tokens, dtype=torch.int64))
        sides.append(max(small.rows, small.columns))
    assert sides[-1] == max(grid), "where all is kept nothing is drawn together"
    assert layout.compact(layout.tokens) == layout


MARK = 5
LUMPED = [(2, [0, 4, 5]), (3, []), (2, [1, 2])]
"""Of each frame of 2 x 3 tokens, how many of text are in front, and the kept tokens."""


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("empty", [0, 1], ids=["first kept", "first empty"])
def test_a_video_with_all_kept_tokens_in_its_first_frame_is_placed_row_by_row(
    empty: int, dtype: torch.dtype
) -> None:
    """In steps of any size after any hit, its text as well; beside a pruned image."""
    clip = LUMPED[empty:] + LUMPED[:empty]
    places, is_mark, is_kept, at = [], [], [], 0
    for length, kept in clip:
        text = range(at, at + length + 1)
        at += length + 1
        places += [(each,) * 3 for each in text]
        places += [(at, at + token // 3, at + token % 3) for token in kept] + [(at + 3,) * 3]
        is_mark += [0] * length + [1] + [0] * (len(kept) + 1)
        is_kept += [0] * (length + 1) + [1] * len(kept) + [0]
        at += 4
    first, total = clip[0][0] + 1, sum(is_kept)
    lumped = [*[TEXT] * (first - 1), MARK, *[VIDEO] * total, TEXT]
    lumped += [token for length, _ in clip[1:] for token in [*[TEXT] * length, MARK, TEXT]]
    assert len(lumped) == len(places)
    ids = [TEXT, TEXT, *lumped, TEXT, IMAGE, IMAGE, TEXT]
    features, numbers = torch.randn(len(lumped), 5).to(dtype), torch.tensor(places)
    marks = torch.tensor(is_mark), torch.tensor(is_kept)
    image = torch.tensor([[[0, 0, 1], [0, 1, 0]]])
    rows = [
        (2, with_lumped_places(features, numbers, *marks)),
        (len(ids) - 3, with_places(torch.randn(1, 2, 5).to(dtype), image)[0]),
    ]
    text = torch.arange(2).expand(3, -1)
    after = torch.arange(2 + at, 3 + at).expand(3, -1)
    expected = torch.cat([text, 2 + numbers.T, after, 3 + at + image[0].T, after + 3], dim=1)
    start = expected.clone()
    start[:, 2 + first : 2 + len(lumped)] = 0
    start[:, -3:-1] = 0
    for chunk in (1, 3, 8, 100):
        for hit in range(len(ids)):
            positions = start.clone()
            for computed in range(hit, len(ids), chunk):
                end = min(len(ids), computed + chunk)
                fed = [(split(each[max(0, computed - o) : max(0, end - o)])[1]) for o, each in rows]
                videos, images = [(2 + first, total)], [(len(ids) - 3, 2)]
                fill(positions, [part for part in fed if len(part)], images, videos, computed)
            assert torch.equal(positions[:, hit:], expected[:, hit:])
