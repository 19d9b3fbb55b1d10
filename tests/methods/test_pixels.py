"""`pixels` beside a literal transcription of its formula, and what it drops of a drawn page."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import vllm_pruner
from vllm_pruner.methods.base import Options, VisualTokens
from vllm_pruner.methods.pixels import PIXELS, surprise, worth


def _surprises(pixels: torch.Tensor, rows: int, columns: int) -> list[float]:
    found = []
    pixels = pixels if pixels.is_floating_point() else pixels.int()
    for place in range(rows * columns):
        before = [place - 1] * (place % columns > 0) + [place - columns] * (place >= columns)
        unlike = [float((pixels[place] - pixels[other]).abs().max()) for other in before]
        found.append(min(unlike, default=float("inf")))
    return found


def _shows_something(token: torch.Tensor) -> bool:
    most = 0.1 if token.is_floating_point() else 12
    return any(float(colour.max()) - float(colour.min()) > most for colour in token.chunk(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8], ids=str)
@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (6, 1), (5, 8)], ids=str)
def test_it_is_the_formula(grid: tuple[int, int], dtype: torch.dtype) -> None:
    rows, columns = grid
    draw = torch.Generator().manual_seed(rows)
    levels = torch.randint(3, (2, rows * columns, 12), generator=draw)
    levels = (120 * levels).to(dtype) if dtype == torch.uint8 else levels.to(dtype) / 3
    levels[:, ::3] = levels[:, :1].clone()
    plain = torch.tensor([place % 4 == 1 for place in range(rows * columns)])
    levels[:, plain] = levels[:, plain, ::4].repeat_interleave(4, dim=2)
    for keep in {1, rows * columns // 2, rows * columns}:
        kept = vllm_pruner.select("pixels", keep=keep, features=levels, grid=grid)
        for image, index in zip(levels, kept.tolist(), strict=True):
            scores = _surprises(image, rows, columns)
            is_first = [
                place == 0 or _shows_something(image[place]) for place in range(len(scores))
            ]
            ranked = sorted(
                range(len(scores)), key=lambda place: (not is_first[place], -scores[place], place)
            )
            assert index == sorted(ranked[:keep])
            assert surprise(image[None], grid)[0].tolist() == scores
            assert sum(is_first) == 1 + int((~plain[1:]).sum())


def test_of_a_page_what_is_empty_goes_first() -> None:
    """Ten of 48 tokens show something: they stay, and the first one, and white ones that follow
    something; then, of equal ones, the first."""
    page = Image.new("L", (8 * 16, 6 * 16), 255)
    draw = ImageDraw.Draw(page)
    written = [9, 10, 11, 13, 25, 26, 28, 33, 34, 46]
    for number, place in enumerate(written):
        left, top = place % 8 * 16, place // 8 * 16
        draw.rectangle((left + 2 + number % 4, top + 3, left + 9, top + 10), fill=20 * number)
    pixels = torch.from_numpy(np.asarray(page, np.float32) / 255)
    tokens = pixels.view(6, 16, 8, 16).transpose(1, 2).reshape(48, 256)
    after = {place + step for place in written for step in (1, 8) if place + step < 48}
    number = int((surprise(tokens[None], (6, 8)) > 0).sum())
    assert len(written) < number < 20
    kept = vllm_pruner.select("pixels", keep=number, features=tokens, grid=(6, 8)).tolist()
    assert {0, *written} <= set(kept) <= {0, *written, *after}
    more = vllm_pruner.select("pixels", keep=number + 2, features=tokens, grid=(6, 8)).tolist()
    assert set(more) == {1, 2, *kept}


def test_a_piece_of_a_rule_stays_though_it_is_the_twin_of_its_neighbour() -> None:
    """Two rules across a page of 48 tokens, and a faint one: 24 tokens that surprise nobody."""
    page = torch.full((6 * 16, 8 * 16), 1.0)
    page[24:26], page[40:42], page[90] = 0.0, 0.0, 0.85
    tokens = page.view(6, 16, 8, 16).transpose(1, 2).reshape(48, 256)
    rules = {*range(8, 24), *range(40, 48)}
    assert int((surprise(tokens[None], (6, 8))[0, sorted(rules)] == 0).sum()) == 22
    kept = vllm_pruner.select("pixels", keep=25, features=tokens, grid=(6, 8)).tolist()
    assert set(kept) == {0, *rules}
    of_bytes = (255 * tokens).to(torch.uint8)
    assert kept == vllm_pruner.select("pixels", keep=25, features=of_bytes, grid=(6, 8)).tolist()
    assert (worth(tokens[None], (6, 8))[0] >= 0).nonzero().flatten().tolist() == kept


def test_colours_are_told_apart() -> None:
    """A red token is plain, though its red is not its blue."""
    red = torch.tensor([0.9, -0.5, -0.7]).repeat_interleave(20).repeat(6, 1)
    red[3, 30] += 0.11
    kept = vllm_pruner.select("pixels", keep=2, features=red, grid=(2, 3)).tolist()
    assert kept == [0, 3]
    assert torch.isfinite(worth(red[None], (2, 3))[0, 1:]).all()


def test_several_grids_are_ranked_as_one_list_each_by_its_own_neighbours() -> None:
    draw = torch.Generator().manual_seed(0)
    first, second = (torch.rand(2, tokens, 12, generator=draw) for tokens in (12, 10))
    second[:, 3:6] = second[:, 2:3]  # twins of the one to the left, in the first row
    joined = torch.cat([first, second], dim=1)
    ranks = torch.cat([worth(first, (3, 4)), worth(second, (1, 10))], dim=1)
    for keep in (1, 9, 22):
        expected = ranks.argsort(dim=1, descending=True, stable=True)[:, :keep].sort().values
        tokens = VisualTokens(joined, grids=((3, 4), (1, 10)))
        assert torch.equal(PIXELS.choose(tokens, keep, Options()).index, expected)
