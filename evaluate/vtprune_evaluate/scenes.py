"""Synthetic scenes with questions whose answers depend on which visual tokens are kept.

Every scene has, at random places without overlap: three salient and two faint things of different
colours and shapes, the large ones with a letter or digit; one to four copies of another shape, to
be counted; about a dozen bright tiles that all look alike, as salient clutter; and, in every other
scene, a sign with three letters. The rest, about three quarters, is texture. The same seed gives
the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vtprune_evaluate.scene_parts import (
    COLORS,
    LETTERS,
    SHAPES,
    background,
    letter_mask,
    shape_mask,
)

__all__ = ["SIZE", "Scene", "Thing", "draw_scene"]

SIZE = 224
SIDES = {"small": (28, 36), "large": (44, 52)}
"""Smallest and largest side of things in pixels; copies are small."""
SIGNS = 0.5
"""Share of the scenes that have a sign."""
TILE, SIGN_HEIGHT = 16, 30
FAINT = (0.28, 0.42)
"""How much of its colour a faint thing adds to the texture."""

Box = tuple[int, int, int, int]
"""Left, top, width, height in pixels."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One object that questions are about."""

    shape: str
    color: str
    size: str
    """`small` or `large`."""
    letter: str
    """The letter on its middle; empty for small things."""
    faint: bool
    box: Box

    @property
    def center(self) -> tuple[float, float]:
        left, top, width, height = self.box
        return left + width / 2, top + height / 2


@dataclass(slots=True)
class Scene:
    """A picture and its contents."""

    pixels: NDArray[np.uint8]
    """`[height, width, 3]`"""
    owner: NDArray[np.int8]
    """`[height, width]`: 0 texture, 1 to 5 things, 6 copies, 7 tiles, 8 sign."""
    things: list[Thing] = field(default_factory=list)
    copies: list[Thing] = field(default_factory=list)
    tile_color: str = ""
    sign: str = ""
    """The sign's letters; empty if there is no sign."""
    sign_box: Box = (0, 0, 0, 0)


class _Canvas:
    """The pixels of a scene in progress, their owners, and the free space."""

    def __init__(self, random: np.random.Generator, width: int, height: int) -> None:
        self.random = random
        self.width, self.height = width, height
        self.pixels = background(random, max(width, height))[:height, :width]
        self.owner = np.zeros((height, width), np.int8)
        self._taken: list[Box] = []

    def place(self, width: int, height: int) -> Box | None:
        """Reserve a random free box with a margin of 2 pixels; None after 60 tries."""
        room = self.width - width + 1, self.height - height + 1
        tries = self.random.integers(0, room, (60, 2)).tolist()
        for x, y in tries:
            if all(
                x >= left + w + 2 or left >= x + width + 2 or y >= top + h + 2
                or top >= y + height + 2
                for left, top, w, h in self._taken
            ):  # fmt: skip
                self._taken.append((x, y, width, height))
                return x, y, width, height
        return None

    def blend(self, mask: NDArray[np.float32], x: int, y: int, color: NDArray[np.float32]) -> None:
        height, width = mask.shape
        region = self.pixels[y : y + height, x : x + width]
        region += mask[..., None] * (color - region)

    def side(self, size: str) -> int:
        least, greatest = SIDES[size]
        return int(self.random.integers(least, greatest + 1))

    def color(self, name: str) -> NDArray[np.float32]:
        return np.asarray(COLORS[name], np.float32) + self.random.normal(0, 9, 3).astype(np.float32)

    def paint(self, thing: Thing, owner: int) -> None:
        """Draw a thing with its letter on its middle."""
        x, y, side, _ = thing.box
        mask, color = shape_mask(thing.shape, side), self.color(thing.color)
        strength = float(self.random.uniform(*FAINT)) if thing.faint else 1.0
        self.blend(mask * strength, x, y, color)
        self.owner[y : y + side, x : x + side][mask > 0.5] = owner
        if thing.letter:
            letter = letter_mask(thing.letter, 20)
            ink = 0.0 if color @ np.array([0.3, 0.59, 0.11], np.float32) > 110 else 255.0
            dx, dy = (side - letter.shape[1]) // 2, (side - letter.shape[0]) // 2
            dy += 6 if thing.shape == "triangle" else 0
            ink_color = np.full(3, ink, np.float32)
            self.blend(letter * min(1.0, 1.5 * strength), x + dx, y + dy, ink_color)


def _add_things(canvas: _Canvas, scene: Scene, shapes: list[str], colors: list[str]) -> bool:
    random = canvas.random
    letters = random.permutation(list(LETTERS))
    for i, (shape, color) in enumerate(zip(shapes[:5], colors[:5], strict=True)):
        size = "small" if random.random() < 0.5 else "large"
        side = canvas.side(size)
        box = canvas.place(side, side)
        if box is None:
            return False
        thing = Thing(shape, color, size, str(letters[i]) if size == "large" else "", i >= 3, box)
        canvas.paint(thing, i + 1)
        scene.things.append(thing)
    return True


def _add_copies(canvas: _Canvas, scene: Scene, shape: str, color: str) -> bool:
    for _ in range(int(canvas.random.integers(1, 5))):
        side = canvas.side("small")
        box = canvas.place(side, side)
        if box is None:
            return False
        thing = Thing(shape, color, "small", "", False, box)
        canvas.paint(thing, 6)
        scene.copies.append(thing)
    return True


def _add_sign(canvas: _Canvas, scene: Scene) -> bool:
    random = canvas.random
    if random.random() >= SIGNS:
        return True
    scene.sign = "".join(str(letter) for letter in random.choice(list(LETTERS), 3))
    width = 3 * 24 + 6
    box = canvas.place(width, SIGN_HEIGHT)
    if box is None:
        return False
    x, y = box[:2]
    canvas.blend(np.ones((SIGN_HEIGHT, width), np.float32), x, y, np.full(3, 245, np.float32))
    for i, letter in enumerate(scene.sign):
        mask = letter_mask(letter, 22)
        canvas.blend(mask, x + 3 + 24 * i + (24 - mask.shape[1]) // 2, y + 4, np.zeros(3, "f4"))
    canvas.owner[y : y + SIGN_HEIGHT, x : x + width] = 8
    scene.sign_box = box
    return True


def _add_tiles(canvas: _Canvas, scene: Scene, color: str) -> None:
    """Draw checkered tiles, which all look alike."""
    scene.tile_color = color
    checks = np.kron([[1, 0] * 2, [0, 1] * 2] * 2, np.ones((TILE // 4, TILE // 4)))[..., None]
    tile = checks * canvas.color(color) + (1 - checks) * 250
    for _ in range(int(canvas.random.integers(8, 15))):
        box = canvas.place(TILE, TILE)
        if box is not None:
            x, y = box[:2]
            canvas.pixels[y : y + TILE, x : x + TILE] = tile
            canvas.owner[y : y + TILE, x : x + TILE] = 7


def draw_scene(*seed: int, size: tuple[int, int] = (SIZE, SIZE)) -> Scene:
    """Draw the scene of a seed; if there is no room for a thing, start over.

    Args:
        seed: determines everything that is drawn.
        size: width and height in pixels, with an area of at least 35,000 to have enough room.
    """
    random = np.random.default_rng(seed)
    while True:
        canvas = _Canvas(random, *size)
        scene = Scene(np.empty(0, np.uint8), canvas.owner)
        shapes = [str(shape) for shape in random.permutation(list(SHAPES))]
        colors = [str(color) for color in random.permutation(list(COLORS))]
        if (
            _add_things(canvas, scene, shapes, colors)
            and _add_sign(canvas, scene)
            and _add_copies(canvas, scene, shapes[5], colors[5])
        ):
            _add_tiles(canvas, scene, colors[6])
            scene.pixels = np.clip(canvas.pixels, 0, 255).astype(np.uint8)
            return scene
