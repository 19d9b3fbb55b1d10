"""The page of `make demo-fast`, in headless Chromium, on two servers that are small and random."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect, sync_playwright
from vllm_server import Server

sys.path.append(str(Path(__file__).parents[2] / "demo" / "fast"))

import fast

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]


@pytest.fixture
def page(stock: Server, pruned: Server) -> Iterator[Page]:
    """The page as it opens, with turns of a second."""
    server = fast.serve(0, {"stock": stock.url, "vtprune": pruned.url})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(120_000)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"http://127.0.0.1:{server.server_port}/?seconds=1")
        yield page
        browser.close()
        assert faults == []
    server.shutdown()
    server.server_close()


def test_both_servers_are_asked_in_turn_and_drawn(
    page: Page, stock: Server, pruned: Server
) -> None:
    page.locator("#go").click()
    turns = page.locator("#chart rect[opacity='1']")
    expect(turns.nth(3)).to_be_visible(timeout=120_000)
    names = [one.get_attribute("data-turn") for one in turns.all()[:4]]
    assert names == ["stock", "vtprune", "stock", "vtprune"]
    page.locator("#go").click()
    expect(page.locator("#go")).to_have_text("Start", timeout=120_000)
    expect(page.locator("#times")).to_contain_text("× the requests per second")
    tokens = [
        int(str(page.locator(f"#{name}-tokens").text_content()).rpartition(" ")[2])
        for name in ("stock", "vtprune")
    ]
    assert tokens[0] - tokens[1] == 576 - 64
    assert page.locator("#error").text_content() == ""
    answers = page.locator("#table tr").last.locator("td").all()[1:]
    assert all(int(str(cell.text_content())) >= 2 * 4 for cell in answers), "two turns of four"
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 860})
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_it_cannot_be_started_before_it_hears(page: Page) -> None:
    held: list[Route] = []
    page.route("**/race.json", lambda route: held.append(route))
    with page.expect_request("**/race.json"):
        page.reload()
    expect(page.locator("#go")).to_be_disabled()
    held[0].continue_()
    expect(page.locator("#go")).to_be_enabled()


def test_a_server_that_is_gone_is_said(page: Page) -> None:
    page.route("**/v1/chat/completions", lambda route: route.abort())
    page.locator("#go").click()
    expect(page.locator("#error")).not_to_have_text("")
    expect(page.locator("#go")).to_have_text("Start")
