"""Take the README's pictures in a headless Chromium: make screenshots [ARGS="playground report"]

`playground` asks the demo model of `make serve` about its scene; `page` has that of
`make demo-qwen-reader` say what it keeps; `report` shows what `make loadtest` wrote last. Chromium
is the machine's: apt-get install chromium.
"""

from __future__ import annotations

import argparse
import base64
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from vllm_process import VllmProcess
from vtprune_evaluate.datasets import DATASETS

ASSETS = Path(__file__).parent
DEMO, READER = ASSETS.parent / "demo" / "llava", ASSETS.parent / "demo" / "qwen-reader"
REPORT = ASSETS.parent / "loadtests" / "results" / "report.html"
MOST = 300_000
"""Bytes of a picture in the repository."""


def main() -> None:
    """Take the pictures that were named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default all")
    parser.add_argument("--question", default="What color is the diamond?")
    parser.add_argument("--report", type=Path, default=REPORT)
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(TAKE):
        parser.error(f"no picture {', '.join(sorted(unknown))}; there are {', '.join(TAKE)}")
    for name in arguments.names or TAKE:
        TAKE[name](arguments)


@contextmanager
def _browser(width: int, height: int) -> Iterator[Page]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("there is no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(
            viewport={"width": width, "height": height}, device_scale_factor=1.5
        )
        page.set_default_timeout(300_000)
        expect.set_options(timeout=300_000)
        yield page
        browser.close()


def playground(arguments: argparse.Namespace) -> None:
    """The scene with its overlay, and the answers of three methods and of every token."""
    flags = ["--plugin", "vtprune", "--dtype", "float32"]
    with tempfile.TemporaryDirectory() as folder:
        server = VllmProcess(Path(folder) / "server.log", str(DEMO), *flags)
        with server, _browser(1200, 700) as page:
            page.goto(f"{server.url}/vtprune/")
            page.locator("#question").fill(arguments.question)
            page.locator("#beside input[value=vispruner]").check()  # misses what is faint
            expect(page.locator("#counts")).to_contain_text("visual tokens kept")
            for _ in range(2):  # the first answers compile: their times say nothing
                page.locator("#ask").click()
                expect(page.locator("#ask")).to_be_enabled()
                expect(page.locator("#answers dl").last).to_contain_text("in all")
            _write(page.screenshot(full_page=True), ASSETS / "playground.png")


def page(arguments: argparse.Namespace) -> None:
    """A page, with what is dropped before the tower sees it darkened."""
    item = next(iter(DATASETS["pages-large"].items(None, 1)))
    url = "data:image/png;base64," + base64.b64encode(item.load()).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}]
    body = {"messages": [{"role": "user", "content": content}]}
    flags = ["--plugin", "vtprune", "--prune-method", "pixels", "--prune-rate", "0.95"]
    flags += ["--dtype", "float32", "--enforce-eager"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with VllmProcess(log, str(READER), *flags) as server:
            answer = httpx.post(f"{server.url}/vtprune/explain", json=body, timeout=300)
    overlay = answer.raise_for_status().json()["images"][0]["views"][0]["overlay"]
    _write(base64.b64decode(overlay.partition(",")[2]), ASSETS / "page.png")


def report(arguments: argparse.Namespace) -> None:
    """The curves of the load report."""
    if not arguments.report.exists():
        sys.exit(f"{arguments.report} does not exist: make loadtest")
    with _browser(1320, 900) as page:
        page.goto(arguments.report.resolve().as_uri())
        bottom = page.locator(".curves").bounding_box()
        assert bottom is not None
        page.set_viewport_size({"width": 1320, "height": int(bottom["y"] + bottom["height"]) + 20})
        _write(page.screenshot(), ASSETS / "loadtest.png")


def _write(screenshot: bytes, path: Path) -> None:
    """Write a PNG, with fewer colours where it would be too large otherwise."""
    picture = Image.open(io.BytesIO(screenshot)).convert("RGB")
    for colours in (None, 256, 64, 16):
        file = io.BytesIO()
        reduced = picture if colours is None else picture.quantize(colours)
        reduced.save(file, "PNG", optimize=True)
        if file.tell() <= MOST:
            path.write_bytes(file.getvalue())
            return
    raise RuntimeError(f"{path.name} has {file.tell()} bytes; allowed: {MOST}")


TAKE = {"playground": playground, "page": page, "report": report}


if __name__ == "__main__":
    main()
