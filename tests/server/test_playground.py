"""The playground in headless Chromium: drop, slide, ask, see what is kept and both answers."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator

import pytest
from media import PHOTOS
from playwright.sync_api import Page, Route, expect, sync_playwright
from test_surface import picture
from vllm_server import Server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]

_DROP = """(target, data) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], "photo.jpg", { type: "image/jpeg" }));
    target.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
}"""


@pytest.fixture(scope="module")
def browser_page() -> Iterator[Page]:
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": 1200, "height": 860})
        page.set_default_timeout(120_000)
        expect.set_options(timeout=120_000)
        yield page
        browser.close()


@pytest.fixture
def page(browser_page: Page, pruned: Server) -> Iterator[Page]:
    faults: list[str] = []
    browser_page.on("pageerror", lambda error: faults.append(str(error)))
    browser_page.goto(f"{pruned.url}/vtprune/")
    expect(browser_page.locator("#about")).to_contain_text("LlavaForConditionalGeneration")
    yield browser_page
    assert faults == []


def _slide(page: Page, rate: float) -> None:
    page.locator("#rate").fill(str(rate))


def test_drop_slide_ask(page: Page, pruned: Server) -> None:
    photo = base64.b64encode(PHOTOS[0].read_bytes()).decode()
    page.locator("#drop").evaluate(_DROP, photo)
    expect(page.locator("#counts")).to_have_text("63 of 576 visual tokens kept")  # 89 percent
    before = page.locator("#overlays img").get_attribute("src")
    _slide(page, 0.5)
    expect(page.locator("#counts")).to_have_text("288 of 576 visual tokens kept")
    after = page.locator("#overlays img").get_attribute("src")
    assert before is not None and after is not None
    assert picture(after).mean() > picture(before).mean()  # more of it is lit
    page.locator("#ask").click()
    expect(page.locator("#unpruned-facts")).to_contain_text("time in all")
    content = [
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{photo}"}},
        {"type": "text", "text": "What is in this picture?"},
    ]
    for name, rate, seen in (("pruned", 0.5, "288 of 576"), ("unpruned", 0, "576 of 576")):
        expected = pruned.text(content, vtprune={"rate": rate}, max_tokens=64)
        assert page.locator(f"#{name}").text_content() == expected
        expect(page.locator(f"#{name}-facts")).to_contain_text(seen)


def test_a_bundled_photograph_by_keyboard_alone(page: Page) -> None:
    page.locator("#photos button").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#counts")).to_contain_text("of 576 visual tokens kept")
    page.locator("#method").select_option("adafv")
    expect(page.locator("#summary")).to_contain_text("AdaFV")
    page.locator("#question").fill("Where are the whiskers?")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#unpruned-facts")).to_contain_text("time to first token")
    assert page.locator("#error").text_content() == ""


def test_nothing_comes_from_elsewhere(page: Page, pruned: Server) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    expect(page.locator("#photos img")).to_have_count(4)
    page.locator("#photos button").nth(1).click()
    expect(page.locator("#overlays img")).to_have_count(1)
    assert asked and all(url.startswith((pruned.url, "data:")) for url in asked)


def test_a_photograph_taken_before_the_server_has_answered_is_explained(page: Page) -> None:
    held: list[Route] = []
    page.route("**/vtprune/config", lambda route: held.append(route))
    page.reload()
    page.locator("#photos button").first.click()
    expect(page.locator("#photos button").first).to_have_attribute("aria-pressed", "true")
    page.wait_for_timeout(500)  # long enough for a question asked too early to fail
    assert page.locator("#error").text_content() == ""
    for route in held:
        route.continue_()
    page.unroute("**/vtprune/config")
    expect(page.locator("#counts")).to_have_text("63 of 576 visual tokens kept")


def test_a_fault_is_shown_in_words(page: Page) -> None:
    page.locator("#photos button").nth(2).click()
    expect(page.locator("#overlays img")).to_have_count(1)
    page.evaluate("document.getElementById('rate').min = -1")
    _slide(page, -1)
    expect(page.locator("#error")).to_contain_text("rate is -1")
    _slide(page, 0.9)
    expect(page.locator("#error")).to_have_text("")
