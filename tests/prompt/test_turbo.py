"""JPEGs decoded by libjpeg-turbo have the pixels that Pillow gives them, in every kind of file."""

from __future__ import annotations

import io
import itertools
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image
from vtprune_evaluate.pages import draw_page

from vllm_pruner.decoded_pixels import keep_pixels, nearest, pixels_of
from vllm_pruner.picture import measure
from vllm_pruner.prompt import jpegs, turbo

PHOTOS = sorted((Path(__file__).parents[2] / "assets" / "photos").glob("*.jpg"))
SIZES = [(1, 1), (8, 8), (17, 33), (641, 3), (3, 641), (448, 336)]
WRITTEN: dict[str, dict[str, Any]] = {
    **{f"subsampling-{way}": {"subsampling": way} for way in ("4:4:4", "4:2:2", "4:2:0")},
    **{f"quality-{quality}": {"quality": quality} for quality in (1, 50, 100)},
    "progressive": {"progressive": True},
    "optimized": {"optimize": True},
    "restart-markers": {"restart_marker_blocks": 3},
    "not-converted": {"keep_rgb": True},
    "icc-and-dpi": {"icc_profile": b"profile" * 99, "dpi": (72, 72), "comment": b"remark"},
}


@pytest.fixture(autouse=True)
def on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turbo, "_ON", [True])


def drawn(width: int, height: int) -> Image.Image:
    """Noise, in which every step of a decoder shows."""
    values = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


def file_of(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def check(data: bytes) -> None:
    image = opened(data)
    assert turbo.decode(image, data)
    found = pixels_of(image)
    assert found is not None
    assert np.array_equal(found, np.asarray(opened(data)))
    assert found.flags.writeable, "torch warns of an array that is not"


@pytest.mark.parametrize("written", WRITTEN)
def test_every_kind_of_file_has_pillows_pixels(written: str) -> None:
    for size in SIZES:
        check(file_of(drawn(*size), **WRITTEN[written]))


@pytest.mark.parametrize("photo", PHOTOS, ids=lambda path: path.stem)
def test_photographs_have_pillows_pixels(photo: Path) -> None:
    check(photo.read_bytes())


def test_the_first_of_several_pictures_in_a_file_is_taken() -> None:
    check(file_of(drawn(40, 30), "MPO", save_all=True, append_images=[drawn(20, 10)]))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("side", [300, 150, 75])
def test_a_file_decoded_at_a_part_of_its_size_has_pillows_pixels(
    side: int, subsampling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jpegs, "_SIDES", [side])
    data = file_of(drawn(801, 600), subsampling=subsampling)
    image, expected = opened(data), opened(data)
    jpegs.reduce(image)
    jpegs.reduce(expected)
    assert image.size == (-(-801 * side // 600), side)
    assert turbo.decode(image, data)
    assert np.array_equal(pixels_of(image), np.asarray(expected))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_what_is_not_rgb_is_left_to_pillow(mode: str) -> None:
    data = file_of(drawn(40, 30).convert(mode))
    image = opened(data)
    assert not turbo.decode(image, data)
    assert pixels_of(image) is None


def test_a_file_that_is_not_in_order_is_left_to_pillow() -> None:
    whole = file_of(drawn(100, 80))
    broken = [whole[:-cut] for cut in (1, 2, 3, 300, len(whole) // 2)]
    broken += [whole[:500] + bytes(50) + whole[550:], whole.replace(b"\xff\xc4", b"\xff\xc5", 1)]
    for data in broken:
        try:
            image = opened(data)
        except OSError:
            continue  # not even a header
        if turbo.decode(image, data):  # the damage is within what a decoder cannot see
            assert np.array_equal(pixels_of(image), np.asarray(opened(data)))
    assert not turbo.decode(opened(broken[0]), broken[4])


def test_nothing_is_decoded_where_no_model_takes_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turbo, "_ON", [])
    data = file_of(drawn(40, 30))
    assert not turbo.decode(opened(data), data)


def test_pillow_decodes_where_simplejpeg_gives_other_pixels_or_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def other(*args: Any, **kwargs: Any) -> Any:
        return 255 - simplejpeg.decode_jpeg(*args, **kwargs)

    caplog.set_level("INFO", "vllm.vtprune")
    data = file_of(drawn(40, 30))
    monkeypatch.setattr(turbo, "_decoder", turbo._decoder.__wrapped__)  # without its cache
    differing = types.ModuleType("simplejpeg")
    vars(differing)["decode_jpeg"] = other
    for module in (differing, None):
        monkeypatch.setitem(sys.modules, "simplejpeg", module)
        assert not turbo.decode(opened(data), data)
        assert "JPEGs are decoded by Pillow" in caplog.text
        caplog.clear()


@pytest.mark.parametrize(
    "size", [(448, 336), (1501, 1000), (200, 2000), (1023, 191), (130, 20), (100, 300)], ids=str
)
def test_a_picture_shows_the_same_by_its_kept_pixels(size: tuple[int, int]) -> None:
    page = Image.fromarray(draw_page(7, 1).pixels)
    for picture in (drawn(*size), page.resize(size)):
        kept = Image.new("RGB", size)
        keep_pixels(kept, np.array(picture))
        assert measure(kept) == measure(picture)


def test_where_a_picture_is_sampled_is_where_pillow_takes_pixels() -> None:
    for width, height in itertools.product((128, 447, 1024, 3001), (5, 192, 1007)):
        picture = drawn(width, height)
        kept = Image.new("RGB", picture.size)
        keep_pixels(kept, np.array(picture))
        for columns in (128, 416, 1024):
            found, expected = (np.asarray(nearest(it, columns, 192)) for it in (kept, picture))
            assert np.array_equal(found, expected)
