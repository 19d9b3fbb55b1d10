"""Pictures and texts for requests: seeded, so that two servers are asked the same."""

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
        self._kind = kind

    def image(self) -> str:
        """A new picture as a data URL, `SIZE` pixels."""
        picture = self._photo() if self._kind == "photos" else self._synthetic()
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=90)
        return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()

    def question(self) -> str:
        """One of the fixed questions."""
        return self.choose.choice(QUESTIONS)

    def digits(self, count: int) -> str:
        """A text of random digits: distinct, so nothing of it is in a cache."""
        return " ".join(str(self.choose.randrange(10)) for _ in range(count))

    def _photo(self) -> Image.Image:
        """A random view of a bundled photograph."""
        source = self.choose.choice(_photographs())
        scale = self.choose.uniform(0.6, 1.0)
        width, height = int(source.width * scale), int(source.height * scale)
        left = self.choose.randrange(source.width - width + 1)
        top = self.choose.randrange(source.height - height + 1)
        return source.resize(SIZE, box=(left, top, left + width, top + height))

    def _synthetic(self) -> Image.Image:
        """Coloured shapes on a coloured ground, cheap to draw."""
        picture = Image.new("RGB", SIZE, self._colour())
        draw = ImageDraw.Draw(picture)
        for _ in range(24):
            x, y = (self.choose.randrange(side) for side in SIZE)
            width, height = (self.choose.randrange(8, side // 3) for side in SIZE)
            shape = self.choose.choice((draw.rectangle, draw.ellipse))
            shape((x, y, x + width, y + height), fill=self._colour())
        return picture

    def _colour(self) -> tuple[int, int, int]:
        return tuple(self.choose.randrange(256) for _ in range(3))  # type: ignore[return-value]


@cache
def _photographs() -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]


def image_part(url: str) -> dict[str, Any]:
    """A picture as a part of a message."""
    return {"type": "image_url", "image_url": {"url": url}}


def text_part(text: str) -> dict[str, Any]:
    """A text as a part of a message."""
    return {"type": "text", "text": text}
