"""The synthetic set: the same seed gives the same scene, and every answer is what was drawn."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from vtprune_evaluate.datasets.synthetic import GROUPS, SYNTHETIC, SYNTHETIC_2, SYNTHETIC_RAGGED
from vtprune_evaluate.ragged import TOKEN, draw_ragged, enlarged, grid_of
from vtprune_evaluate.scene_parts import COLORS
from vtprune_evaluate.scene_questions import NUMBERS, PLAN, ask
from vtprune_evaluate.scenes import SIDES, SIZE, draw_scene

SCENES = [draw_scene(9, i) for i in range(40)]


def test_a_seed_gives_the_same_pixels_and_questions() -> None:
    again = draw_scene(9, 3)
    assert np.array_equal(again.pixels, SCENES[3].pixels)
    assert ask(again, 9, 3) == ask(SCENES[3], 9, 3)
    assert not np.array_equal(SCENES[2].pixels, SCENES[3].pixels)


def test_every_other_scene_has_a_sign_and_sizes_keep_apart() -> None:
    assert 10 < sum(bool(scene.sign) for scene in SCENES) < 30
    for i, scene in enumerate(SCENES):
        (sign,) = [question for question in ask(scene, 9, i) if question.kind == "sign"]
        assert sign.clear == bool(scene.sign) == bool((scene.owner == 8).any())
        for thing in scene.things + scene.copies:
            least, greatest = SIDES[thing.size]
            assert least <= thing.box[2] <= greatest


def test_things_look_as_they_are_said_to() -> None:
    """The pixels of a salient thing are nearest to its colour; a faint one's stand out less."""
    palette = np.array(list(COLORS.values()), float)
    right = 0
    for scene in SCENES:
        assert scene.pixels.shape == (SIZE, SIZE, 3)
        assert [thing.faint for thing in scene.things] == [False] * 3 + [True] * 2
        for i, thing in enumerate(scene.things[:3]):
            middle = np.median(scene.pixels[scene.owner == i + 1], axis=0)
            nearest = np.linalg.norm(palette - middle, axis=1).argmin()
            right += list(COLORS)[nearest] == thing.color
    assert right == 3 * len(SCENES)


def test_nothing_overlaps() -> None:
    for scene in SCENES:
        boxes = [thing.box for thing in scene.things + scene.copies] + [scene.sign_box]
        covered = np.zeros((SIZE, SIZE), int)
        for left, top, width, height in boxes:
            covered[top : top + height, left : left + width] += 1
        assert covered.max() == 1


def test_questions_name_one_thing_and_answers_are_true() -> None:
    for i, scene in enumerate(SCENES):
        questions = ask(scene, 9, i)
        assert [question.kind for question in questions] == PLAN
        for question in questions:
            if question.kind == "color":
                (thing,) = [t for t in scene.things if f" {t.shape}?" in question.text]
                assert question.answer == thing.color
                assert question.salience == ("faint" if thing.faint else "salient")
            if question.kind == "count":
                shape = question.text.split()[2]
                drawn = [t for t in scene.things + scene.copies if t.shape == shape]
                assert question.answer == NUMBERS[len(drawn)]
            if question.kind == "beside":
                words = question.text.rstrip("?").split()
                x = {t.shape: t.center[0] for t in scene.things}
                assert question.answer == ("left" if x[words[2]] < x[words[8]] else "right")


def test_ragged_pictures_have_the_sides_of_their_grids() -> None:
    """So Qwen's processor resizes none, and owners lie on the pixels of what they own."""
    palette, shapes = np.array(list(COLORS.values()), float), set()
    for i in range(20):
        grid = grid_of(9, i)
        scene = draw_ragged(9, i, grid=grid)
        pixels, owner = enlarged(scene, grid)
        assert pixels.shape == (grid[0] * TOKEN, grid[1] * TOKEN, 3)
        assert owner.shape == pixels.shape[:2]
        assert set(np.unique(owner)) == set(np.unique(scene.owner))
        for which, thing in enumerate(scene.things[:3], 1):
            middle = np.median(pixels[owner == which], axis=0)
            nearest = np.linalg.norm(palette - middle, axis=1).argmin()
            assert list(COLORS)[nearest] == thing.color, (i, thing)
        shapes.add(grid)
    assert len(shapes) > 5


@pytest.mark.parametrize(
    "dataset", [SYNTHETIC, SYNTHETIC_2, SYNTHETIC_RAGGED], ids=lambda dataset: dataset.name
)
def test_the_set_has_all_kinds_in_equal_parts(dataset) -> None:
    items = list(dataset.items(None, 200))
    counts = collections.Counter(item.group for item in items)
    assert set(counts) == set(GROUPS)
    assert max(counts.values()) - min(counts.values()) <= 2
    assert items[0].load().startswith(b"\x89PNG")
    assert len({item.id for item in items}) == 200


def test_the_sets_share_no_picture() -> None:
    pictures = [
        item.load()
        for dataset in (SYNTHETIC, SYNTHETIC_2, SYNTHETIC_RAGGED)
        for item in {item.image: item for item in dataset.items(None, 10)}.values()
    ]
    assert len(set(pictures)) == len(pictures)


def test_an_answer_is_compared_by_its_words() -> None:
    assert SYNTHETIC.score(" K 7 B", "K 7 B") == 1
    assert SYNTHETIC.score("K7B", "K 7 B") == 0
    assert SYNTHETIC.score("red", "green") == 0
