"""`make loadtest`, small, on the servers of this session: its figures and its page."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from playwright.sync_api import sync_playwright

pytestmark = pytest.mark.server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ROOT = Path(__file__).parents[2]
LOADS = [
    ("single_image", "closed", 1),
    ("single_image", "closed", 3),
    ("single_image", "open", None),
    ("mixed_traffic", "closed", 1),
    ("mixed_traffic", "closed", 2),
]


@pytest.fixture(scope="module")
def report(pruned, stock, tmp_path_factory) -> tuple[dict[str, Any], str]:
    """The JSON and the page of a comparison that takes half a minute."""
    folder = tmp_path_factory.mktemp("report")
    flags = ["--stock-url", stock.url, "--vtprune-url", pruned.url, "--output", str(folder)]
    flags += ["--users", "3", "--rates", "1.0", "--others", "mixed_traffic", "--others-users", "2"]
    flags += ["--seconds", "2", "--output-tokens", "4", "--pictures", "synthetic"]
    paths = [str(ROOT / "environment"), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "loadtests" / "compare.py"), "--checkpoint", "demo", *flags],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    page = (folder / "report.html").read_text()
    return json.loads((folder / "report.json").read_text()), page


def test_both_servers_answer_every_load(report) -> None:
    rows = report[0]["rows"]
    assert [row["contender"] for row in rows] == ["stock", "vtprune"] * len(LOADS)
    for row, (scenario, kind, level) in zip(rows[::2], LOADS, strict=True):
        assert (row["scenario"], row["load"]) == (scenario, kind)
        assert level in (None, row["level"])
    for row in rows:
        assert row["requests"] > 0 == row["failed"], row["errors"]
        assert 0 < row["ttft_p50_s"] <= row["ttft_p95_s"] <= row["ttft_p99_s"]
        assert row["ttft_p50_s"] < row["total_p50_s"]
        assert row["goodput_per_s"] <= row["requests_per_s"]
        assert row["load"] == "closed" or row["goodput_per_s"] <= row["arrivals_per_s"]


def test_the_pruned_prompt_is_512_tokens_shorter(report) -> None:
    """The same seed asks the same question first, so the first loads differ by pruning alone."""
    stock, pruned = report[0]["rows"][:2]
    assert stock["prompt_tokens"] - pruned["prompt_tokens"] == pytest.approx(512, abs=8)


class Page(HTMLParser):
    """Table cells, and everything that a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.fetched: list[str] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_cell = tag == "td"
        if tag in ("script", "link", "img", "iframe", "object", "embed"):
            self.fetched.append(tag)
        for name, value in attrs:
            reference = name in ("src", "href", "xlink:href", "data") or "url(" in (value or "")
            if reference and not (value or "").replace("url(", "").startswith("#"):
                self.fetched.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        if self._in_cell and data.strip():
            self.cells.append(data.strip())


def test_the_page_loads_nothing_and_shows_every_figure(report) -> None:
    result, text = report
    page = Page(text)
    assert page.fetched == []
    for row in result["rows"]:
        assert f"{row['ttft_p95_s']:.3f}" in page.cells
        assert f"{row['requests_per_s']:.2f}" in page.cells
    assert result["machine"]["cpu"] in text and result["machine"]["commit"] in text


def test_the_curves_are_whole_and_named(report) -> None:
    pieces = report[1].split("<svg ")[1:]
    curves = [
        ElementTree.fromstring("<svg " + piece.split("</svg>")[0] + "</svg>") for piece in pieces
    ]
    assert len(curves) == 4
    assert all(curve.get("role") == "img" and curve.get("aria-label") for curve in curves)
    texts = ["".join(curve.itertext()) for curve in curves]
    assert all("vtprune" in text and "stock" in text for text in texts)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_a_browser_shows_the_page_without_a_complaint_or_a_request(report, tmp_path) -> None:
    """The page's own content policy makes anything from outside an error on the console."""
    file = tmp_path / "report.html"
    file.write_text(report[1])
    asked, said = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto(file.as_uri())
        boxes = [curve.bounding_box() for curve in page.locator("figure svg").all()]
        rows = page.locator("tbody tr").count()
        browser.close()
    assert asked == [file.as_uri()]
    assert said == []
    assert len(boxes) == 4 and all(box and box["width"] > 300 < box["height"] * 2 for box in boxes)
    assert rows == len(report[0]["rows"])
