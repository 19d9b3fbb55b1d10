"""The budget of rows that end in newlines, against a plain statement of the rule."""

from __future__ import annotations

import pytest
import torch

from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.layout.newlines import method_budget, with_newlines
from vllm_pruner.layout.newlines_of_many import with_newlines_of_many

LAYOUTS = {
    "square": CropLayout(9, 3, (2, 2), (0, 6), (0, 6)),
    "wide": CropLayout(9, 3, (2, 2), (1, 5), (0, 6)),
    "tall": CropLayout(4, 2, (3, 1), (0, 6), (0, 2)),
    "one-column": CropLayout(9, 3, (3, 1), (0, 9), (1, 2)),
    "one-row": CropLayout(4, 2, (1, 3), (0, 1), (0, 6)),
    "no-column": CropLayout(9, 3, (3, 1), (0, 9), (1, 1)),
    "no-row": CropLayout(9, 3, (1, 2), (1, 1), (0, 6)),
    "one-crop": CropLayout(9),
}


def _literal(
    chosen: list[int], importance: list[float], keep: int, layout: CropLayout
) -> list[int]:
    """The header's rule for one image, one token after the other, as positions."""
    if layout.width == 0:
        return [*chosen, *range(layout.base, layout.base + keep - len(chosen))]

    def row(patch: int) -> int | None:
        """The row of the raster, of which the base crop has none."""
        return None if patch < layout.base else (patch - layout.base) // layout.width

    def rows(patches: list[int]) -> set[int]:
        return {place for place in map(row, patches) if place is not None}

    def size(patches: list[int]) -> int:
        return len(patches) + len(rows(patches))

    def best(patches: set[int]) -> list[int]:
        return sorted(patches, key=lambda patch: (-importance[patch], patch))

    kept = best(set(chosen))
    others = best(set(range(layout.patches)) - set(chosen))
    while others and size([*kept, others[0]]) <= keep:
        kept.append(others.pop(0))
    if size(kept) < keep:
        beside = [patch for patch in others if row(patch) is None or row(patch) in rows(kept)]
        if beside:
            kept.append(beside[0])
        else:
            kept.remove([patch for patch in kept if row(patch) is None][-1])
            kept.append(others[0])
    patches = [
        patch if row(patch) is None else patch + (patch - layout.base) // layout.width
        for patch in kept
    ]
    newlines = [layout.base + place * (layout.width + 1) + layout.width for place in rows(kept)]
    return sorted([*patches, *newlines])


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_budget_is_met_exactly_and_as_the_rule_says(layout: CropLayout, ties: bool) -> None:
    """Every K from 1 to all, of images with other choices in one batch."""
    images = 6
    for keep in range(1, layout.tokens + 1):
        generator = torch.Generator().manual_seed(keep)
        importance = torch.rand(images, layout.patches, generator=generator)
        if ties:
            importance = importance.mul(4).floor()
        # Image 0 chooses the most important ones, as most methods do; the others anything.
        chosen = torch.rand(images, layout.patches, generator=generator)
        chosen[0] = importance[0]
        chosen = chosen.argsort(dim=1, descending=True, stable=True)
        chosen = chosen[:, : method_budget(keep, layout)].sort(dim=1).values
        positions = with_newlines(chosen, importance, keep, layout)
        expected = [
            _literal(*image, keep, layout)
            for image in zip(chosen.tolist(), importance.tolist(), strict=True)
        ]
        assert positions.tolist() == expected
        assert positions.shape == (images, keep)
        assert bool((positions[:, 1:] > positions[:, :-1]).all())
        _check_newlines(positions, layout)


@pytest.mark.parametrize("kind", ["distinct", "ties", "not finite"])
@pytest.mark.parametrize("base", [4, 9])
def test_images_of_different_layouts_in_one_call_keep_what_they_keep_alone(
    base: int, kind: str
) -> None:
    """Any budgets, in any order of layouts, and whatever stands in the padding."""
    layouts = [each for each in LAYOUTS.values() if each.base == base and each.height * each.width]
    assert len(layouts) >= 2
    for seed in range(150):
        draw = torch.Generator().manual_seed(seed)
        mixed = [layouts[at] for at in torch.randint(len(layouts), (5,), generator=draw)]
        keeps = [int(torch.randint(1, it.tokens + 1, (1,), generator=draw)) for it in mixed]
        shares = [method_budget(keep, it) for keep, it in zip(keeps, mixed, strict=True)]
        importance = torch.rand(5, max(it.patches for it in mixed), generator=draw)
        if kind == "ties":
            importance = importance.mul(4).floor()
        if kind == "not finite":
            importance[:, ::3], importance[:, 1::4] = torch.nan, -torch.inf
        chosen = torch.full((5, max(shares)), -1)
        for row, share, layout in zip(chosen, shares, mixed, strict=True):
            row[:share] = torch.randperm(layout.patches, generator=draw)[:share].sort().values
        found = with_newlines_of_many(chosen, importance, keeps, mixed)
        for place, (keep, layout) in enumerate(zip(keeps, mixed, strict=True)):
            own = importance[place : place + 1, : layout.patches]
            alone = with_newlines(chosen[place : place + 1, : shares[place]], own, keep, layout)
            assert torch.equal(found[place, :keep], alone[0])
            assert bool((found[place, keep:] == -1).all())


def _check_newlines(positions: torch.Tensor, layout: CropLayout) -> None:
    """A newline is kept if and only if a patch of its row is, read off the raster itself."""
    if layout.width == 0:
        return
    kept = torch.zeros(len(positions), layout.tokens, dtype=torch.bool)
    kept.scatter_(1, positions, True)
    raster = kept[:, layout.base :].view(len(positions), layout.height, layout.width + 1)
    assert torch.equal(raster[:, :, -1], raster[:, :, :-1].any(dim=2))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_what_the_method_chose_is_kept_up_to_the_last_few_tokens(layout: CropLayout) -> None:
    for keep in range(1, layout.tokens + 1):
        generator = torch.Generator().manual_seed(keep)
        importance = torch.rand(20, layout.patches, generator=generator)
        chosen = torch.rand(20, layout.patches, generator=generator).argsort(dim=1)
        chosen = chosen[:, : method_budget(keep, layout)].sort(dim=1).values
        positions = with_newlines(chosen, importance, keep, layout)
        patches, newline = layout.patches_at(positions)
        for image in range(20):
            kept = set(patches[image][~newline[image]].tolist())
            missing = set(chosen[image].tolist()) - kept
            assert len(missing) <= (
                1 if set(range(layout.base)) <= set(chosen[image].tolist()) else 0
            )


def test_the_numbers_of_llava_next_are_these() -> None:
    """A square picture of 672 pixels: 576 and 48 rows of 48, 2,928 tokens with newlines."""
    layout = CropLayout(576, 24, (2, 2), (0, 48), (0, 48))
    assert (layout.crops, layout.patches, layout.tokens) == (5, 2880, 2928)
    assert [method_budget(keep, layout) for keep in (1, 4, 64, 96, 160, 320, 2928)] == [
        *(0, 2, 32, 48, 112, 272, 2880)
    ]
