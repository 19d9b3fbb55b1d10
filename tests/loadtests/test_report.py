"""The page of the results that are in the repository, in a browser where there is one."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright
from report import render, render_both

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


def _faster() -> dict[str, Any]:
    """The result of a machine twice as fast, without the last scenario."""
    result = copy.deepcopy(RESULT)
    result["machine"]["cpu"] = "another"
    result["rows"] = [row for row in result["rows"] if row["scenario"] != "mixed_traffic"]
    for row in result["rows"]:
        row["requests_per_s"] *= 2
        row["level"] *= 2 if row["load"] == "open" else 1
    return result


def test_two_results_stand_load_by_load() -> None:
    page = render_both(("before.json", "after.json"), RESULT, _faster())
    shared = [row for row in RESULT["rows"] if row["scenario"] != "mixed_traffic"]
    assert page.count('<tr><td class="text">') == len(shared)
    assert page.count("<td>2.00</td>") >= len(shared)
    assert "mixed_traffic" not in page
    assert "<td>cpu</td><td>AMD EPYC</td><td>another</td>" in page
    assert "before.json" in page and "after.json" in page


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
@pytest.mark.parametrize("both", [False, True])
def test_nothing_is_cut_at_1280_pixels(both, tmp_path) -> None:
    file = tmp_path / "report.html"
    names = ("before.json", "after.json")
    file.write_text(render_both(names, RESULT, _faster()) if both else render(RESULT))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(file.as_uri())
        cut = page.evaluate(_CUT)
        browser.close()
    assert cut == []
