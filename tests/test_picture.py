"""What pictures show: real photographs and screenshots; pages drawn here, printed and scanned."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from transformers import AutoImageProcessor
from vllm_process import MODELS
from vtprune_evaluate.pages import draw_page
from vtprune_evaluate.scenes import draw_scene

from vllm_pruner.methods.pixels import surprise, worth
from vllm_pruner.picture import UNSEEN, Picture, measure
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.floor import floored
from vllm_pruner.settings.limits import Limits
from vllm_pruner.settings.plain_tokens import plain_share

ROOT = Path(__file__).parents[1]
PHOTOS = sorted((ROOT / "assets" / "photos").glob("*.jpg"))
TEXT = "the total of 4,218.50 is due by 31 March and shipping to Rotterdam costs 12.90 each"
WORDS = TEXT.split()


def page(side: int = 1024, size: int = 16, ink: int = 20, paper: int = 250, full: float = 1.0):
    """A page of running words, printed as far down as `full`."""
    random = np.random.default_rng(size)
    image = Image.new("RGB", (side, side), (paper,) * 3)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    margin = side * 0.08
    for y in np.arange(margin, margin + full * (side - 2 * margin) - size, 1.4 * size):
        x = margin
        while x < side - margin - 5 * size:
            word = str(random.choice(WORDS))
            draw.text((x, y), word, fill=(ink,) * 3, font=font)
            x += draw.textlength(word, font) + size / 3
    return image


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def scan(image: Image.Image) -> Image.Image:
    """Unevenly lit, and noisy."""
    pixels = np.asarray(image.convert("L"), np.float32)
    light = np.linspace(0.75, 1, pixels.shape[1]) * np.linspace(1, 0.85, len(pixels))[:, None]
    noise = np.random.default_rng(0).normal(0, 5, pixels.shape)
    return Image.fromarray(np.clip(pixels * light + noise, 0, 255).astype(np.uint8))


def bars() -> Image.Image:
    """A chart: six bars, an axis, and some words."""
    image = Image.new("RGB", (1024, 768), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(18)
    draw.line((80, 40, 80, 700, 1000, 700), fill="black", width=2)
    for i, height in enumerate((320, 410, 90, 530, 250, 610)):
        draw.rectangle((120 + 150 * i, 700 - height, 210 + 150 * i, 700), fill=(70, 130, 180))
        draw.text((130 + 150 * i, 712), f"Q{i} 2026", fill="black", font=font)
        draw.text((30, 690 - 110 * i), f"{20 * i} M", fill="black", font=font)
    draw.text((380, 10), "Revenue by quarter in million", fill="black", font=font)
    return image


def table(shaded: bool = False) -> Image.Image:
    """An invoice: rules around four columns of numbers, and a line to sign on."""
    image, random = Image.new("RGB", (1240, 1754), "white"), np.random.default_rng(0)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(18)
    for row in range(25):
        top = 200 + 48 * row
        if shaded and row % 2:
            draw.rectangle((100, top, 1140, top + 47), fill=(235, 235, 235))
        draw.line((100, top, 1140, top), fill="black", width=2)
        for left in (110, 430, 710, 930):
            if row < 24 and random.random() < 0.6:
                draw.text((left, top + 12), f"{random.integers(99999)}.90", "black", font)
    for left in (100, 420, 700, 920, 1140):
        draw.line((left, 200, left, 1352), fill="black", width=2)
    draw.line((100, 1650, 600, 1650), fill="black", width=2)
    return image


PRINTED = {
    "page": page(),
    "large letters": page(size=26),
    "a slide": page(size=60),
    "enlarged": page(side=336, size=11).resize((1024, 1024), Image.Resampling.BICUBIC),
    "small page": page(side=336, size=9),
    "at 300 dpi": page(side=2480, size=42),
    "grey": page(ink=110, paper=235),
    "white on black": page(ink=240, paper=10),
    "jpeg": jpeg(page(), 60),
    "scan": scan(page()),
    "scan as jpeg": jpeg(scan(page(size=24)), 70),
    "palette": page().convert("P"),
    "reader's": Image.fromarray(draw_page(1, 0).pixels),
}


@pytest.mark.parametrize("name", PRINTED)
def test_a_page_is_mostly_print(name: str) -> None:
    assert 0.4 < measure(PRINTED[name]).text < 1


@pytest.mark.parametrize(
    ("file", "least", "most"),
    [
        ("assets/playground.png", 0.2, 0.5),
        ("assets/loadtest.png", 0.2, 0.5),
        ("benchmarks/results/accuracy-demo.png", 0.3, 0.7),
    ],
    ids=str,
)
def test_of_a_screenshot_or_a_chart_the_words_are(file: str, least: float, most: float) -> None:
    assert least < measure(Image.open(ROOT / file)).text < most


def test_a_few_words_on_a_drawing_count_and_the_drawing_does_not() -> None:
    found = measure(bars())
    assert 0.02 < found.text < 0.2
    assert found.plain > 0.5


def test_half_a_page_has_half_the_print() -> None:
    whole, half = measure(page()), measure(page(full=0.5))
    assert 0.4 < half.text / whole.text < 0.6
    assert half.plain > whole.plain


@pytest.mark.parametrize("file", PHOTOS, ids=lambda file: file.stem)
@pytest.mark.parametrize(
    "change", ["as it is", "jpeg", (160, 160), (336, 336), (1024, 768)], ids=str
)
def test_a_photograph_has_no_print(file: Path, change: str | tuple[int, int]) -> None:
    photo = Image.open(file).convert("RGB")
    if change == "jpeg":
        photo = jpeg(photo, 40)
    elif isinstance(change, tuple):
        photo = photo.resize(change, Image.Resampling.BICUBIC)
    assert measure(photo).text == 0


def test_drawn_scenes_noise_and_gradients_have_none() -> None:
    scenes = [Image.fromarray(draw_scene(4, i).pixels) for i in range(40)]
    scenes += [scene.resize((640, 640), Image.Resampling.BICUBIC) for scene in scenes]
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    y, x = np.mgrid[0:240, 0:320]
    slope = ((x + y) // 3).astype(np.uint8)
    others = [Image.fromarray(noise), Image.fromarray(slope), Image.new("RGB", (512, 512))]
    assert [measure(image).text for image in [*scenes, *others]] == [0.0] * 83


BLANK = Picture(0.0, 1.0, b"\xff" * 128)
"""All cells are plain."""


def test_which_cells_are_plain_is_told() -> None:
    found = measure(page(full=0.5))
    cells = np.unpackbits(np.frombuffer(found.cells, np.uint8)).reshape(32, 32)
    assert cells.mean() == found.plain
    assert cells[18:].all()
    assert cells[3:15, 4:28].mean() < 0.1


def test_nothing_at_all_is_plain_and_noise_is_not() -> None:
    assert measure(Image.new("RGB", (512, 300), "white")) == BLANK
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    assert measure(Image.fromarray(noise)).plain == 0


@pytest.mark.parametrize("size", [(1, 1), (100, 2000), (128, 1), (5000, 3), (131, 77)], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1", "CMYK"])
def test_any_size_and_mode_is_looked_at(size: tuple[int, int], mode: str) -> None:
    found = measure(Image.new("RGB", size, "white").convert(mode))
    assert found == (UNSEEN if size[0] < 128 else BLANK)


def test_another_process_sees_the_same() -> None:
    program = (
        "from PIL import Image; from vllm_pruner.picture import measure; "
        f"print(measure(Image.open({str(ROOT / 'assets' / 'loadtest.png')!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(measure(Image.open(ROOT / "assets" / "loadtest.png")))


SHOWN = {
    **{name: PRINTED[name] for name in ("page", "large letters", "a slide", "small page", "jpeg")},
    **{name: PRINTED[name] for name in ("white on black", "scan", "palette")},
    "chart": bars(),
    "small chart": bars().resize((400, 300)),
    "table": table(),
    "shaded table": table(shaded=True),
    "table as jpeg": jpeg(table(), 50),
    **{name: Image.open(ROOT / "assets" / f"{name}.png") for name in ("loadtest", "playground")},
}


class Shown(NamedTuple):
    name: str
    image: Image.Image
    tokens: torch.Tensor
    grid: tuple[int, int]
    deviation: torch.Tensor

    def contrast(self) -> torch.Tensor:
        """Of each token's most varied colour, of 255."""
        colours = self.tokens[0].unflatten(1, (3, -1))
        found: torch.Tensor = (255 * self.deviation * (colours.amax(2) - colours.amin(2))).amax(1)
        return found


@pytest.fixture(scope="module", params=SHOWN)
def shown(request: pytest.FixtureRequest) -> Shown:
    """A picture as Qwen2.5-VL sees it."""
    processor = AutoImageProcessor.from_pretrained(MODELS / "demo-qwen2.5")
    size = {"shortest_edge": 3136, "longest_edge": 12845056}  # the published bounds
    image = SHOWN[request.param].convert("RGB")
    seen = processor([image], size=size, return_tensors="pt")
    _, rows, columns = seen["image_grid_thw"][0].tolist()
    patches = seen["pixel_values"].view(1, rows * columns // 4, 4, 3, -1)
    tokens = patches.transpose(2, 3).flatten(2)
    deviation = torch.tensor(processor.image_std)
    return Shown(request.param, image, tokens, (rows // 2, columns // 2), deviation)


def test_tokens_that_are_all_plain_look_like_a_neighbour(shown: Shown) -> None:
    """As many as the floor `content` leaves to the rate can be dropped without one that differs
    from the token to its left, or above, in any pixel."""
    scores = surprise(shown.tokens, shown.grid)
    share = plain_share(measure(shown.image), scores.numel())
    assert int(share * scores.numel()) <= int((scores == 0).sum())
    least, most = LEFT_TO_THE_RATE.get(shown.name, (0.15, 0.45))
    assert least <= share <= most


def test_nothing_that_shows_something_is_dropped(shown: Shown) -> None:
    """Of no token that goes at a rate of 0.95 does any colour vary by more than a plain cell's
    brightness may."""
    config = PruneConfig.parse({"method": "pixels", "rate": 0.95})
    scores = worth(shown.tokens, shown.grid)[0]
    keep = floored(config, measure(shown.image), len(scores), Limits()).keep_count(len(scores))
    dropped = scores.argsort(descending=True, stable=True)[keep:]
    assert len(dropped) >= (LEFT_TO_THE_RATE.get(shown.name, (0.15,))[0] * 0.9 * len(scores))
    assert int((shown.contrast()[dropped] > 12).sum()) == 0


LEFT_TO_THE_RATE = dict.fromkeys(["scan", "palette"], (0.0, 0.01))
LEFT_TO_THE_RATE |= dict.fromkeys(["table", "table as jpeg"], (0.45, 0.6))
"""Grain is not plain, nor is a dithered page."""
