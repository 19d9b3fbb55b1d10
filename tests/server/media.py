"""Real files for requests: bundled photographs, odd images by Pillow, clips by OpenCV."""

from __future__ import annotations

import base64
import io
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

PHOTOS = sorted((Path(__file__).parents[2] / "assets" / "photos").glob("*.jpg"))


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """An image with something else in every pixel."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def data_url(file: bytes, mime: str = "image/jpeg") -> str:
    """A file as OpenAI's `image_url` takes it."""
    return f"data:{mime};base64,{base64.b64encode(file).decode()}"


def image_part(file: bytes, mime: str = "image/jpeg") -> dict[str, Any]:
    """An image as a part of a message."""
    return {"type": "image_url", "image_url": {"url": data_url(file, mime)}}


def clip(frames: int, side: int = 112, fps: int = 2) -> bytes:
    """The bytes of an mp4 in which a bright square crosses a picture of noise."""
    ground = np.asarray(noise(side, side)) // 2
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.mp4"
        code = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(file), code, fps, (side, side))
        for number in range(frames):
            frame = ground.copy()
            left = number * side // frames
            frame[side // 4 : side // 2, left : left + side // 4] = 255
            writer.write(frame)
        writer.release()
        return file.read_bytes()


def video_part(file: bytes, mime: str = "video/mp4") -> dict[str, Any]:
    """A video as a part of a message."""
    return {"type": "video_url", "video_url": {"url": data_url(file, mime)}}


def text_part(text: str) -> dict[str, str]:
    """Text as a part of a message."""
    return {"type": "text", "text": text}


def photo_question(index: int, text: str = "What is in this picture?") -> list[dict[str, Any]]:
    """A message about one of the bundled photographs."""
    return [image_part(PHOTOS[index % len(PHOTOS)].read_bytes()), text_part(text)]
