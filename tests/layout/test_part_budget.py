"""One budget over the frames of a video, or the tiles of an image."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import vllm_pruner
from vllm_pruner import methods
from vllm_pruner.layout.crop_budget import choose
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.shares import frame_shares
from vllm_pruner.layout.tile_layout import TileLayout
from vllm_pruner.methods.base import Kept, Method, VisualTokens
from vllm_pruner.settings.config import PruneConfig

FRAMES, ROWS, COLUMNS = 5, 4, 6
SIZE = ROWS * COLUMNS
LAYOUT = GridLayout(ROWS, COLUMNS, FRAMES)


def _tokens(videos: int = 2) -> VisualTokens:
    draw = torch.Generator().manual_seed(0)
    shape = (videos, FRAMES * SIZE)
    return VisualTokens(
        torch.randn(*shape, 16, generator=draw),
        importance=torch.rand(shape, generator=draw),
        projected=torch.randn(*shape, 8, generator=draw),
        text=[torch.randn(3 + video, 8, generator=draw) for video in range(videos)],
        keys=torch.randn(*shape, 4, generator=draw),
        received=torch.rand(shape, generator=draw),
        received_midway=torch.rand(shape, generator=draw),
        grid=(ROWS, COLUMNS),
    )


def _frame(tokens: VisualTokens, video: int, frame: int) -> dict[str, Any]:
    """As a user of `select` gives one picture."""
    rows = slice(frame * SIZE, (frame + 1) * SIZE)
    names = ("features", "importance", "projected", "keys", "received", "received_midway")
    fields = {name: getattr(tokens, name)[video, rows] for name in names}
    return {**fields, "text": tokens.text[video], "grid": tokens.grid}  # type: ignore[index]


@pytest.mark.parametrize("keep", [1, 4, 5, 7, 33, FRAMES * SIZE])
def test_shares_differ_by_one_and_the_first_frames_have_more(keep: int) -> None:
    found = frame_shares(FRAMES, keep)
    assert sum(found) == keep and max(found) - min(found) <= 1
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("keep", [3, 17, 60])
@pytest.mark.parametrize("method", ["vispruner", "adafv", "hiprune", "divprune", "visionzip"])
def test_a_method_of_images_keeps_of_each_frame_what_it_keeps_of_a_picture(
    method: str, keep: int
) -> None:
    tokens = _tokens()
    kept = choose(tokens, PruneConfig.parse({"method": method, "tokens": keep}), LAYOUT)
    for video in range(2):
        index, rows = [], []
        for frame, share in enumerate(frame_shares(FRAMES, keep)):
            if share:
                alone, made = vllm_pruner.prune(method, keep=share, **_frame(tokens, video, frame))
                index += (alone + frame * SIZE).tolist()
                rows.append(made)
        assert kept.index[video].tolist() == index == sorted(set(index))
        if kept.rows is not None:
            torch.testing.assert_close(kept.rows[video], torch.cat(rows))


@pytest.mark.parametrize("keep", [3, 17, 60])
@pytest.mark.parametrize("method", ["evs", "vidcom2"])
def test_a_method_of_videos_spends_the_whole_budget(method: str, keep: int) -> None:
    tokens = _tokens()
    config = PruneConfig.parse({"video_method": method, "tokens": keep}).of_video()
    frames = tokens.features.unflatten(1, (FRAMES, SIZE))
    expected = vllm_pruner.select_video(method, keep=keep, features=frames)
    assert torch.equal(choose(tokens, config, LAYOUT).index, expected)


@pytest.mark.parametrize("keep", [1, 7, 33, 100])
@pytest.mark.parametrize("method", ["vispruner", "adafv", "scope", "random"])
def test_tiles_of_equal_shares_are_one_call_and_keep_what_each_keeps_alone(
    method: str, keep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method of another package is called for each: its faults are told apart by image."""
    calls = []

    def run(method: Method, tokens: VisualTokens, share: int, options: Any) -> Kept:
        calls.append(len(tokens.features))
        return method.choose(tokens, share, options)

    tokens, tiles = _tokens(), TileLayout(2, FRAMES * SIZE // 4, fixed_shares=True)
    config = PruneConfig.parse({"method": method, "tokens": keep})
    together = choose(tokens, config, tiles, run=run).index
    assert len(calls) <= 2 and sum(calls) == 2 * min(keep, tiles.crops)
    calls.clear()
    monkeypatch.setattr(methods, "package_of", lambda name: "elsewhere")
    alone = choose(tokens, config, tiles, keep, run).index
    assert calls == [2] * min(keep, tiles.crops)
    assert torch.equal(together, alone)


def test_a_frame_is_a_view_and_a_position_of_time() -> None:
    layout = GridLayout(2, 3, 3, pace=2.5)
    assert (layout.tokens, layout.encoded, layout.whole_grid) == (18, 18, (2, 3))
    assert [(view.start, view.end, view.crop) for view in layout.views()] == [
        (0, 6, 0),
        (6, 12, 1),
        (12, 18, 2),
    ]
    places = layout.places_at(torch.tensor([0, 5, 6, 17]), layout)
    assert places.tolist() == [[0, 0, 0], [0, 1, 2], [2, 0, 0], [5, 1, 2]]
    small = layout.compact(5)
    assert small.frames == 3 and small.frame_tokens >= 2 and small.pace == 2.5
