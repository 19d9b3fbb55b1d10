"""A file that vLLM has decoded once is decoded again only when its pixels are asked for."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin
from vllm.multimodal.hasher import MultiModalHasher
from vllm.multimodal.media import image
from vllm.multimodal.media.image import ImageMediaIO

from vllm_pruner.compat.known_files import _unless_known

pytestmark = pytest.mark.skipif(
    not hasattr(image, "open_image"), reason="vLLM 0.31 decodes every time"
)

ORIENTATION = 0x0112


def picture(kind: str = "JPEG", mode: str = "RGB", orientation: int | None = None) -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    file = io.BytesIO()
    Image.fromarray(values).convert(mode).save(file, kind, exif=exif)
    return file.getvalue()


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> type[ImageMediaIO]:
    original = ImageMediaIO.load_bytes
    monkeypatch.setattr(ImageMediaIO, "load_bytes", _unless_known(original))
    return ImageMediaIO


def identity(loaded: Any) -> str:
    return MultiModalHasher.hash_kwargs("blake3", image=loaded)


@pytest.mark.parametrize(
    ("data", "left"),
    [
        (picture(), True),
        (picture(orientation=1), True),
        (picture(orientation=6), False),
        (picture(orientation=3), False),
        (picture(mode="L"), False),
        (picture("PNG"), False),
    ],
    ids=["plain", "upright", "to-turn", "upside-down", "to-convert", "png"],
)
def test_the_second_time_is_the_first_without_its_pixels(
    load: type[ImageMediaIO], data: bytes, left: bool
) -> None:
    first, second = load().load_bytes(data), load().load_bytes(data)
    is_lazy = isinstance(second.media, JpegImagePlugin.JpegImageFile)
    assert is_lazy == left
    if is_lazy:
        assert second.media.tile, "nothing is decoded yet"
    assert (first.size, first.mode, first.io_config) == (second.size, second.mode, second.io_config)
    assert identity(first) == identity(second)
    assert np.array_equal(np.asarray(first.media), np.asarray(second.media))


def test_another_mode_is_another_picture(load: type[ImageMediaIO]) -> None:
    data = picture()
    load().load_bytes(data)
    grey = load(image_mode="L").load_bytes(data)
    assert grey.mode == "L"
    assert grey.io_config is not None


def test_a_broken_file_is_refused_every_time(load: type[ImageMediaIO]) -> None:
    data = picture()[:-400]
    for _ in range(2):
        with pytest.raises(ValueError, match="Failed to load image"):
            load().load_bytes(data)
