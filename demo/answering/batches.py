"""Training batches: scenes as patches with labels, and all questions of a scene in one sequence.

The questions about a scene are packed into one sequence. A mask lets each attend to the image and
to itself only, and its positions restart after the image, so each is computed as if it were alone;
the image is encoded once for twenty questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from vocabulary import ASSISTANT, EOS, IDS, NOTHING, ORDER, SIZES, VISIBLE, encode
from vtprune_evaluate.scene_parts import COLORS, LETTERS, SHAPES
from vtprune_evaluate.scene_questions import PLAN, ask
from vtprune_evaluate.scenes import SIZE, Scene, Thing, draw_scene

PATCH, GRID = 14, SIZE // 14
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])
"""Mean and deviation of CLIP's image processor."""
IGNORE = -100

LABEL_WORDS = {
    "color": [*COLORS, NOTHING],
    "shape": [*SHAPES, "tiles", "sign", NOTHING],
    "size": [*SIZES, NOTHING],
    "letter": [*LETTERS, NOTHING],
    "order": [*ORDER, NOTHING],
    "row": ["top", "bottom"],
    "column": ["left", "right"],
}
"""The groups that the patch-level loss classifies every visual token by, and each one's words."""
_PLACE = {group: {word: i for i, word in enumerate(words)} for group, words in LABEL_WORDS.items()}
SEEN = [*COLORS, *SHAPES, *LETTERS, "tiles", "sign"]
"""What the class token learns to report: words of the salient things, the tiles and the sign."""


@dataclass(slots=True)
class Batch:
    """`patches` [B, 256, 588], bytes; `labels` group -> [B, 256]; `owner` [B, 256]; `seen` [B, 34];
    `tokens`, `targets` [B, L]; `about` [B, S], the owners of the things that questions name."""

    patches: torch.Tensor
    labels: dict[str, torch.Tensor]
    owner: torch.Tensor
    seen: torch.Tensor
    tokens: torch.Tensor
    targets: torch.Tensor
    about: torch.Tensor


def to_patches(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Patches [256, 588] of an image [224, 224, 3], channel first within a patch as the tower's
    convolution reads them."""
    cut = pixels.reshape(GRID, PATCH, GRID, PATCH, 3).transpose(0, 2, 4, 1, 3)
    return cut.reshape(GRID * GRID, 3 * PATCH * PATCH)


def take(patches: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """The patches `which` [B, K], normalised: [B, K, 588]."""
    some = patches.gather(1, which[..., None].expand(-1, -1, patches.shape[2])).float()
    return (some / 255 - MEAN.repeat_interleave(PATCH**2)) / STD.repeat_interleave(PATCH**2)


def owners(of_pixels: NDArray[np.int8], side: int = PATCH) -> NDArray[np.int64]:
    """The owner of each square of `side` pixels: the one with most pixels there, if they are at
    least a fifth of the square, else 0. `of_pixels` [height, width], as `Scene.owner`."""
    rows, columns = (length // side for length in of_pixels.shape)
    y, x = np.arange(rows * side) // side, np.arange(columns * side) // side
    mine = (y[:, None] * columns + x) * 9 + of_pixels
    counts = np.bincount(mine.ravel(), minlength=9 * rows * columns).reshape(-1, 9)[:, 1:]
    return np.where(counts.max(-1) >= side * side // 5, counts.argmax(-1) + 1, 0)


def _rows(scene: Scene) -> list[tuple[str, str, str, str]]:
    """Colour, shape, size and letter of every owner."""

    def row(thing: Thing) -> tuple[str, str, str, str]:
        return thing.color, thing.shape, thing.size, thing.letter or NOTHING

    blank = (NOTHING,) * 4
    things = [row(thing) for thing in scene.things]
    tiles = (scene.tile_color, "tiles", NOTHING, NOTHING)
    return [blank, *things, row(scene.copies[0]), tiles, (NOTHING, "sign", NOTHING, NOTHING)]


def patch_labels(
    scene: Scene, owner: NDArray[np.int64], columns: int = GRID, side: float = PATCH
) -> dict[str, NDArray[np.int64]]:
    """The index of the right word of every group for every patch. Patches are squares of `side`
    pixels of the scene, `columns` per row."""
    rows = _rows(scene)
    labels = {
        group: np.array([_PLACE[group][row[i]] for row in rows])[owner]
        for i, group in enumerate(("color", "shape", "size", "letter"))
    }
    y, x = np.divmod(np.arange(len(owner)), columns)
    left = scene.sign_box[0]
    at = np.clip((x * side + side / 2 - left - 3) // 24, 0, 2).astype(int)
    on_sign = np.array([_PLACE["letter"][letter] for letter in scene.sign or LETTERS[:3]])[at]
    labels["letter"] = np.where(owner == 8, on_sign, labels["letter"])
    labels["order"] = np.where(owner == 8, at, len(ORDER))
    labels["row"] = (y >= len(owner) // columns // 2).astype(int)
    labels["column"] = (x >= columns // 2).astype(int)
    return labels


def seen(scene: Scene) -> NDArray[np.float32]:
    """Which of `SEEN` the salient, tiles and sign of a scene show: [34]."""
    salient = [thing for thing in scene.things if not thing.faint] + scene.copies
    words = {thing.color for thing in salient} | {thing.shape for thing in salient}
    words |= {thing.letter for thing in salient} | set(scene.sign)
    words |= {scene.tile_color, "tiles"} | ({"sign"} if scene.sign else set())
    return np.array([word in words for word in SEEN], np.float32)


def sequence(
    scene: Scene, *seed: int, closing: Sequence[int] = (ASSISTANT,)
) -> tuple[list[int], list[int], list[int]]:
    """All questions about a scene, each followed by `closing` and its answer: tokens, targets, and
    the owners of the things that the questions name."""
    tokens: list[int] = []
    targets: list[int] = []
    about: list[int] = []
    for question in ask(scene, *seed):
        words, answer = [*encode(question.text), *closing], encode(question.answer)
        tokens += [*words, *answer]
        wanted = [*answer, EOS] if question.clear else [IGNORE] * (len(answer) + 1)
        targets += [IGNORE] * (len(words) - 1) + wanted
        about += question.about
    return tokens, targets, about


def make_batch(size: int, *seed: int) -> Batch:
    """The batch for a seed: scene i is drawn from `(*seed, i)`."""
    scenes = [draw_scene(*seed, i) for i in range(size)]
    owner = [owners(scene.owner) for scene in scenes]
    labels = [patch_labels(scene, of) for scene, of in zip(scenes, owner, strict=True)]
    pairs = [sequence(scene, *seed, i) for i, scene in enumerate(scenes)]
    return Batch(
        torch.from_numpy(np.stack([to_patches(scene.pixels) for scene in scenes])),
        {g: torch.from_numpy(np.stack([label[g] for label in labels])) for g in LABEL_WORDS},
        torch.from_numpy(np.stack(owner)),
        torch.from_numpy(np.stack([seen(scene) for scene in scenes])),
        torch.tensor([tokens for tokens, _, _ in pairs]),
        torch.tensor([targets for _, targets, _ in pairs]),
        torch.tensor([about for _, _, about in pairs]),
    )


NAMED_AT = {"color": (4,), "shape": (4,), "letter": (5,), "size": (4,), "where": (3,)}
NAMED_AT |= {"beside": (2, 8), "above": (2, 7), "count": (2,), "sign": (3,), "tiles": (4,)}
"""Which words of a question name the things that it is about."""


def layout(closing: Sequence[int] = (ASSISTANT,)) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """For every token of a sequence's text, the index of its question [L] and its position in that
    question [L]; then the kind of each question. They are the same for every scene."""
    questions = ask(draw_scene(0), 0)
    lengths = [len(encode(q.text)) + len(closing) + len(encode(q.answer)) for q in questions]
    which = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    place = torch.cat([torch.arange(length) for length in lengths])
    return which, place, PLAN


WORD_IDS = {g: torch.tensor([IDS[word] for word in words]) for g, words in LABEL_WORDS.items()}
UNSEEN_IDS = torch.tensor([i for word, i in IDS.items() if word not in VISIBLE])
"""Words that name nothing visible, including the markers of turns."""
THING_IDS = torch.tensor([IDS[word] for word in SEEN])
