"""The page of the results that are in the repository, in a browser where there is one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright
from report import render

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
RESULT = json.loads((Path(__file__).parents[2] / "loadtests/results/report.json").read_text())

_CUT = """() => [
    ...[document.documentElement, ...document.querySelectorAll(".scroll")]
        .filter((one) => one.scrollWidth > one.clientWidth),
    ...[...document.querySelectorAll("figure svg")].flatMap((curve) => {
        const all = curve.getBoundingClientRect();
        return [...curve.querySelectorAll("text")].filter((text) => {
            const box = text.getBoundingClientRect();
            return box.left < all.left - 1 || box.right > all.right + 1;
        });
    }),
].map((one) => one.textContent.slice(0, 40))"""


def test_the_goodput_of_an_older_result_is_not_above_what_arrived() -> None:
    """It says 1.82/s of .41/s itself: one request, over its own half second."""
    page = render(RESULT)
    assert "<td>1.82</td>" not in page
    assert page.count("<td>0.10</td>") >= 2


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_nothing_is_cut_at_1280_pixels(tmp_path) -> None:
    file = tmp_path / "report.html"
    file.write_text(render(RESULT))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(file.as_uri())
        cut = page.evaluate(_CUT)
        browser.close()
    assert cut == []
