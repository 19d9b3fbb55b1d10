"""The order of what is kept of two grids, with a newline behind each row and a separator last."""

from __future__ import annotations

import pytest
import torch

from vllm_pruner.layout.fine_then_whole import FineThenWhole

LAYOUTS = [FineThenWhole((2, 3)), FineThenWhole((2, 3), (4, 2)), FineThenWhole((16, 16), (60, 10))]


def _run(layout: FineThenWhole) -> list[int]:
    """The unpruned run: tokens by their numbers, -1 for a mark."""
    run, start = [], 0
    for rows, columns in (layout.fine, layout.whole):
        for _ in range(rows):
            run += [*range(start, start + columns), -1]
            start += columns
    return [*run, -1]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_all_marks_stand_among_the_kept_tokens_where_they_stood(layout: FineThenWhole) -> None:
    whole = _run(layout)
    assert layout.tokens == max(whole) + 1 and layout.breaks + 1 == whole.count(-1)
    draw = torch.Generator().manual_seed(0)
    for keep in (1, layout.tokens // 2, layout.tokens):
        index = torch.stack(
            [torch.randperm(layout.tokens, generator=draw)[:keep].sort().values for _ in range(2)]
        )
        for kept, order in zip(index, layout.order_with_marks(index), strict=True):
            stays = [each for each in whole if each < 0 or each in kept.tolist()]
            assert [int(kept[at]) if at < keep else -1 for at in order] == stays
            marks = order[order >= keep]
            assert marks.tolist() == list(range(keep, keep + layout.breaks + 1))
