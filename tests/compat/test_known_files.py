"""A file that vLLM has decoded once is decoded again only when its pixels are asked for."""

from __future__ import annotations

import inspect
import io
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin
from vllm.multimodal.hasher import MultiModalHasher
from vllm.multimodal.media import image
from vllm.multimodal.media.image import ImageMediaIO

from vllm_pruner.compat.image_header import _opened
from vllm_pruner.compat.known_files import _unless_known
from vllm_pruner.prompt import jpegs, turbo

pytestmark = pytest.mark.skipif(
    not hasattr(image, "open_image"), reason="vLLM 0.31 decodes every time"
)

ORIENTATION = 0x0112


def picture(
    kind: str = "JPEG",
    mode: str = "RGB",
    orientation: int | None = None,
    size: tuple[int, int] = (60, 40),
) -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    file = io.BytesIO()
    Image.fromarray(values).convert(mode).save(file, kind, exif=exif)
    return file.getvalue()


@pytest.fixture(autouse=True, params=["pillow", "turbo"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who decodes new files: Pillow, or libjpeg-turbo as where a model takes arrays."""
    monkeypatch.setattr(turbo, "_ON", [True] if request.param == "turbo" else [])
    return str(request.param)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> type[ImageMediaIO]:
    return loader(monkeypatch)


def loader(monkeypatch: pytest.MonkeyPatch, side: int | None = None) -> type[ImageMediaIO]:
    """vLLM's reader as a process with one engine has it."""
    monkeypatch.setattr(jpegs, "_SIDES", [side])
    for name, where in (("open_image", image), ("load_bytes", ImageMediaIO)):
        stock = inspect.unwrap(getattr(where, name))
        wrap = {
            "open_image": partial(_opened, lambda size: None, jpegs.reduce),
            "load_bytes": partial(_unless_known, jpegs.reduce, jpegs.decoded_at, turbo.decode),
        }[name]
        monkeypatch.setattr(where, name, wrap(stock))
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
    load: type[ImageMediaIO], data: bytes, left: bool, decoder: str
) -> None:
    first, second = load().load_bytes(data), load().load_bytes(data)
    assert turbo.is_decoded(first.media) == (left and decoder == "turbo")
    assert not turbo.is_decoded(second.media)
    is_lazy = isinstance(second.media, JpegImagePlugin.JpegImageFile)
    assert is_lazy == left
    if is_lazy:
        assert second.media.tile, "nothing is decoded yet"
    assert (first.size, first.mode, first.io_config) == (second.size, second.mode, second.io_config)
    assert identity(first) == identity(second)
    assert np.array_equal(np.asarray(first.media), np.asarray(second.media))


@pytest.mark.parametrize("kind", ["plain", "upright", "to-turn", "to-convert", "broken", "png"])
def test_a_new_file_is_what_vllm_makes_of_it(kind: str, load: type[ImageMediaIO]) -> None:
    data = {
        "plain": picture(),
        "upright": picture(orientation=1),
        "to-turn": picture(orientation=6),
        "to-convert": picture(mode="L"),
        "broken": picture()[:-400],
        "png": picture("PNG"),
    }[kind]
    stock = inspect.unwrap(load.load_bytes)
    if kind == "broken":
        with pytest.raises(ValueError, match="Failed to load image") as theirs:
            stock(load(), data)
        with pytest.raises(ValueError, match="Failed to load image") as ours:
            load().load_bytes(data)
        assert str(ours.value) == str(theirs.value)
        return
    theirs_, ours_ = stock(load(), data), load().load_bytes(data)
    assert np.array_equal(np.asarray(theirs_.media), np.asarray(ours_.media))
    assert (theirs_.mode, theirs_.io_config) == (ours_.mode, ours_.io_config)
    assert identity(theirs_) == identity(ours_)


def test_a_new_file_is_decoded_once_and_not_copied(
    load: type[ImageMediaIO], monkeypatch: pytest.MonkeyPatch, decoder: str
) -> None:
    data = picture()

    def copied(self: Image.Image) -> Image.Image:
        raise AssertionError("copied")

    monkeypatch.setattr(Image.Image, "copy", copied)
    made = load().load_bytes(data)
    by_pillow = not made.media.tile
    assert by_pillow != turbo.is_decoded(made.media), "a broken file is refused before rendering"
    assert by_pillow == (decoder == "pillow")


def test_vllms_own_bound_on_pixels_holds(
    load: type[ImageMediaIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", "100")
    with pytest.raises(ValueError, match="exceed the maximum of 100 pixels"):
        load().load_bytes(picture())


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


@pytest.mark.parametrize(
    ("size", "side", "decoded"),
    [
        ((800, 600), 300, (400, 300)),
        ((801, 600), 150, (201, 150)),
        ((800, 600), 75, (100, 75)),
        ((8000, 100), 75, (8000, 100)),  # the shorter side decides
        ((800, 600), 301, (800, 600)),
    ],
    ids=str,
)
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size_and_is_another_picture(
    size: tuple[int, int], side: int, decoded: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = picture(size=size)
    whole = loader(monkeypatch).load_bytes(ImageMediaIO(), data)
    load = loader(monkeypatch, side)
    first, second = load().load_bytes(data), load().load_bytes(data)
    assert first.size == second.size == decoded
    assert np.array_equal(np.asarray(first.media), np.asarray(second.media))
    assert identity(first) == identity(second)
    assert (identity(first) == identity(whole)) == (decoded == size)


def test_what_is_turned_or_converted_is_reduced_too_and_other_formats_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = loader(monkeypatch, 64)
    turned = load().load_bytes(picture(orientation=6, size=(256, 128)))
    assert (turned.size, turned.io_config) == ((64, 128), {"decoded_at": (128, 64)})
    grey = load(image_mode="L").load_bytes(picture(size=(256, 128)))
    assert (grey.size, grey.mode, grey.io_config["decoded_at"]) == ((128, 64), "L", (128, 64))
    assert load().load_bytes(picture("PNG", size=(256, 128))).size == (256, 128)


def test_nothing_is_reduced_where_one_engine_wants_all_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = loader(monkeypatch, 64)
    jpegs.reduce_to(32)
    assert load().load_bytes(picture(size=(256, 128))).size == (128, 64), "the larger one"
    jpegs.reduce_to(None)
    assert load().load_bytes(picture(size=(256, 128))).size == (256, 128)
