"""Pictures and texts for requests, seeded, so that two servers get the same requests."""

from __future__ import annotations

import base64
import io
import random
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

__all__ = ["QUESTIONS", "SIZE", "Media", "image_part", "text_part"]

PHOTOS = Path(__file__).parents[2] / "assets" / "photos"
SIZE = 448, 336
QUESTIONS = (
    "What is in this picture, and what stands behind it?",
    "Which colours do you see, and where?",
    "How many things can be counted here?",
    "Is anything written in it, and what does it say?",
    "What could have happened just before this was taken?",
    "Describe the light and where it comes from.",
)


class Media:
    """Endless distinct pictures and texts from one seed."""

    def __init__(self, seed: str, kind: str = "photos") -> None:
        self.choose = random.Random(seed)
        self._seed, self._kind = seed, kind
        self._drawn: list[str] = []
        self._given = 0

    def prepare(self) -> Media:
        """Draw the first picture now, for instance in a thread, and return self."""
        self._drawn.append(self._draw(0))
        return self

    def image(self) -> str:
        """Return the next picture as a data URL, `SIZE` pixels; independent of earlier ones."""
        if self._given == len(self._drawn):
            self._drawn.append(self._draw(self._given))
        self._given += 1
        return self._drawn[self._given - 1]

    def _draw(self, number: int) -> str:
        choose = random.Random(f"{self._seed}/{number}")
        picture = _photo(choose) if self._kind == "photos" else _synthetic(choose)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=90)
        return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()

    def question(self) -> str:
        """Return one of the fixed questions."""
        return self.choose.choice(QUESTIONS)

    def digits(self, count: int) -> str:
        """Return a text of random digits, distinct so that no cache has any of it."""
        return " ".join(str(self.choose.randrange(10)) for _ in range(count))


def _photo(choose: random.Random) -> Image.Image:
    """Return a random view of a bundled photograph."""
    source = choose.choice(_photographs())
    scale = choose.uniform(0.6, 1.0)
    width, height = int(source.width * scale), int(source.height * scale)
    left = choose.randrange(source.width - width + 1)
    top = choose.randrange(source.height - height + 1)
    return source.resize(SIZE, box=(left, top, left + width, top + height))


def _synthetic(choose: random.Random) -> Image.Image:
    """Return coloured shapes on a coloured ground, which is cheap to draw."""

    def colour() -> tuple[int, int, int]:
        return choose.randrange(256), choose.randrange(256), choose.randrange(256)

    picture = Image.new("RGB", SIZE, colour())
    draw = ImageDraw.Draw(picture)
    for _ in range(24):
        x, y = (choose.randrange(side) for side in SIZE)
        width, height = (choose.randrange(8, side // 3) for side in SIZE)
        shape = choose.choice((draw.rectangle, draw.ellipse))
        shape((x, y, x + width, y + height), fill=colour())
    return picture


@cache
def _photographs() -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]


def image_part(url: str) -> dict[str, Any]:
    """Return a picture as a part of a message."""
    return {"type": "image_url", "image_url": {"url": url}}


def text_part(text: str) -> dict[str, Any]:
    """Return a text as a part of a message."""
    return {"type": "text", "text": text}
