"""Picture files as strangers send them: unusual but valid, unaffordably large, and broken."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["BROKEN", "DEAR", "ODD"]

Files = dict[str, bytes]


def _noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotated by 90 degrees
    return _file(_noise(90, 60), "JPEG", exif=exif)


def _sixteen_bit() -> bytes:
    pixels = np.random.default_rng(1).integers(0, 2**16, (60, 90), dtype=np.uint16)
    return _file(Image.fromarray(pixels), "PNG")


def _animated(kind: str) -> bytes:
    frames = [_noise(64, 48, seed) for seed in range(4)]
    return _file(frames[0], kind, save_all=True, append_images=frames[1:], duration=40)


def _blank(width: int, height: int) -> bytes:
    return _file(Image.new("1", (width, height)), "PNG")


ODD: Files = {
    "cmyk jpeg": _file(_noise(90, 60).convert("CMYK"), "JPEG"),
    "grey jpeg": _file(_noise(90, 60).convert("L"), "JPEG"),
    "progressive jpeg": _file(_noise(90, 60), "JPEG", progressive=True),
    "rotated by exif": _rotated(),
    "16-bit png": _sixteen_bit(),
    "palette png": _file(_noise(90, 60).quantize(16), "PNG", transparency=3),
    "png with alpha": _file(_noise(90, 60).convert("RGBA"), "PNG"),
    "1-bit png": _blank(90, 60),
    "interlaced gif": _file(_noise(90, 60).quantize(16), "GIF", interlace=1),
    "animated gif": _animated("GIF"),
    "animated webp": _animated("WEBP"),
    "tiff": _file(_noise(90, 60), "TIFF"),
    "bmp": _file(_noise(90, 60), "BMP"),
    "1 x 1": _file(_noise(1, 1), "PNG"),
    "2 x 2": _file(_noise(2, 2), "PNG"),
    "1 x 100": _file(_noise(1, 100), "PNG"),
}
"""A server answers questions about them, or explains in a 400 why not."""

DEAR: Files = {
    "1 x 4,000": _blank(1, 4_000),
    "1 x 60,000": _blank(1, 60_000),
    "60,000 x 1": _blank(60_000, 1),
    "13,000 x 13,000": _blank(13_000, 13_000),
    "20,000 x 20,000": _blank(20_000, 20_000),
}
"""Small files of very large or thin pictures: a server must answer 400 and not use the memory."""


def _cut(name: str, file: bytes) -> Files:
    return {f"{name}, {tenth} tenths": file[: len(file) * tenth // 10] for tenth in range(10)}


BROKEN: Files = {
    **_cut("jpeg", _file(_noise(90, 60), "JPEG")),
    **_cut("png", _file(_noise(90, 60), "PNG")),
    **_cut("webp", _file(_noise(90, 60), "WEBP")),
    **_cut("gif", _file(_noise(90, 60).quantize(16), "GIF")),
}
"""A server must never answer 5xx; a decoder may accept a file with only its end missing."""
