"""The playground in headless Chromium: what it opens on, drop, slide, ask, answers side by side."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from media import PHOTOS, image_part, text_part
from playwright.sync_api import Page, Route, expect, sync_playwright
from test_surface import picture
from vllm_server import Server

from vllm_pruner.settings.defaults import DEFAULT_METHOD

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]

CHAT = "**/v1/chat/completions"
SCENE = Path(__file__).parents[2] / "server/vtprune_server/playground/photos/scene.png"


@pytest.fixture(scope="module")
def browser_page() -> Iterator[Page]:
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(120_000)
        expect.set_options(timeout=120_000)
        yield page
        browser.close()


@pytest.fixture
def page(browser_page: Page, answering: Server) -> Iterator[Page]:
    """The page as it opens; the test fails if a script does, or the content policy refuses one."""
    faults: list[str] = []
    browser_page.on("pageerror", lambda error: faults.append(str(error)))
    browser_page.on("console", lambda said: said.type == "error" and faults.append(said.text))
    browser_page.goto(f"{answering.url}/vtprune/")
    expect(browser_page.locator("#counts")).to_have_text("28 of 256 visual tokens kept")
    yield browser_page
    assert [fault for fault in faults if "status of 400" not in fault] == []


def _slide(page: Page, rate: float) -> None:
    page.locator("#rate").fill(str(rate))


def _shown(page: Page) -> str:
    source = page.locator("#overlays img").get_attribute("src")
    assert source is not None
    return source


def _ask(page: Page) -> None:
    held: list[Route] = []
    waiting = True
    # Else the answers may be there before anybody has looked at the button.
    page.route(CHAT, lambda route: held.append(route) if waiting else route.continue_())
    page.locator("#ask").click()
    expect(page.locator("#ask")).to_be_disabled()
    waiting = False
    for route in held:
        route.continue_()
    expect(page.locator("#ask")).to_be_enabled()
    page.unroute(CHAT)
    expect(page.locator("#answers dl").last).to_contain_text("in all")
    assert page.locator("#error").text_content() == ""


def _question(image: bytes, text: str) -> list[dict[str, Any]]:
    return [image_part(image), text_part(text)]


def _answers(page: Page) -> dict[str, str]:
    cards = page.locator("#answers section").all()
    names = [str(card.get_attribute("data-method")) for card in cards]
    answers = [card.locator("output").inner_text().strip() for card in cards]
    return dict(zip(names, answers, strict=True))


def test_it_opens_on_a_question_that_the_demo_answers(page: Page) -> None:
    expect(page.locator("#about")).to_contain_text("LlavaForConditionalGeneration")
    expect(page.locator("#question")).to_have_value("What color is the heart?")
    expect(page.locator("#speed")).to_be_visible()
    expect(page.locator("#speed")).to_contain_text("do not show what pruning saves")
    _ask(page)
    assert _answers(page) == {DEFAULT_METHOD: "orange", "adafv": "orange", "every": "orange"}


def test_the_demo_answers_what_is_offered_about_its_scene(page: Page, answering: Server) -> None:
    offered = [str(one.text_content()) for one in page.locator("#questions button").all()]
    answers = [
        answering.text(_question(SCENE.read_bytes(), text), vtprune={"rate": 0}, max_tokens=64)
        for text in offered
    ]
    assert [answer.strip() for answer in answers] == ["orange", "pink", "E P A", "X", "top left"]


def test_methods_stand_side_by_side_eight_at_most(page: Page, answering: Server) -> None:
    page.get_by_text("What color is the diamond?").click()
    boxes = page.locator("#beside input:visible")
    for box in boxes.all()[:7]:
        if box.is_enabled():
            box.check()
    checked = [box.input_value() for box in boxes.all() if box.is_checked()]
    assert len(checked) == 6
    assert all(box.is_disabled() for box in boxes.all() if not box.is_checked())
    _ask(page)
    answers = _answers(page)
    assert list(answers) == [DEFAULT_METHOD, *checked, "every"]
    # What covers the picture has the faint diamond too; what follows attention alone does not.
    assert answers["every"] == answers[DEFAULT_METHOD] == "pink" != answers["attention"]
    content = _question(SCENE.read_bytes(), "What color is the diamond?")
    for name in checked:
        asked = answering.text(content, vtprune={"method": name, "rate": 0.89}, max_tokens=64)
        assert answers[name] == asked.strip()
    kept = page.locator("#answers section .pictures img")
    assert len({image.get_attribute("src") for image in kept.all()}) > 4
    assert page.locator("#answers dl").first.text_content() != ""


def test_what_is_kept_follows_the_slider_one_explanation_at_a_time(page: Page) -> None:
    at_once = most = 0

    def begun(route: Route) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        route.continue_()

    def ended(_: object) -> None:
        nonlocal at_once
        at_once -= 1

    before = picture(_shown(page))
    page.route("**/vtprune/explain", begun)
    page.on("requestfinished", ended)
    for step in range(88, 49, -1):
        _slide(page, step / 100)
    expect(page.locator("#counts")).to_have_text("128 of 256 visual tokens kept")
    page.unroute("**/vtprune/explain")
    page.remove_listener("requestfinished", ended)
    assert most == 1
    assert picture(_shown(page)).mean() > before.mean()  # more of it is lit


def _drop(page: Page, file: Path, x: float, y: float) -> None:
    """As a hand does it: the browser itself decides what a drop does that no script takes."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send(
            "Input.dispatchDragEvent", {"type": kind, "x": x, "y": y, "data": data, "modifiers": 0}
        )


_WATCH_DEFAULTS = """() => {
    window.defaults = [];
    for (const kind of ["dragover", "drop"])
        window.addEventListener(kind, (event) =>
            defaults.push(kind + (event.defaultPrevented ? " prevented" : " left")));
}"""


def test_a_drop_beside_the_box_is_taken_and_the_page_stays(page: Page) -> None:
    address, before = page.url, _shown(page)
    page.evaluate(_WATCH_DEFAULTS)  # headless Chromium opens no dropped file, others do
    _drop(page, PHOTOS[0], x=1270, y=840)
    expect(page.locator("#question")).to_have_value("What is in this picture?")
    expect(page.locator("#overlays img")).not_to_have_attribute("src", before)
    expect(page.locator("#overlays img")).to_have_attribute("alt", "28 of 256 patches kept")
    assert page.url == address
    _drop(page, Path(__file__), x=1270, y=840)
    expect(page.locator("#error")).to_have_text("That is not a picture.")
    assert set(page.evaluate("defaults")) == {"dragover prevented", "drop prevented"}
    assert page.url == address


def test_a_dropped_picture_is_answered_as_over_http(page: Page, answering: Server) -> None:
    box = page.locator("#drop").bounding_box()
    assert box is not None
    _drop(page, PHOTOS[0], x=box["x"] + 20, y=box["y"] + 20)
    expect(page.locator("#question")).to_have_value("What is in this picture?")
    _slide(page, 0.5)
    expect(page.locator("#counts")).to_have_text("128 of 256 visual tokens kept")
    _ask(page)
    content = _question(PHOTOS[0].read_bytes(), "What is in this picture?")
    for name, rate, seen in ((DEFAULT_METHOD, 0.5, "128 of 256"), ("every", 0, "256 of 256")):
        expected = answering.text(content, vtprune={"rate": rate}, max_tokens=64)
        assert _answers(page)[name] == expected.strip()
        expect(page.locator(f"[data-method={name}] dl")).to_contain_text(seen)


def test_a_bundled_photograph_by_keyboard_alone(page: Page) -> None:
    page.locator("#photos button").nth(1).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#question")).to_have_value("What is in this picture?")
    page.locator("#method").select_option("adafv")
    expect(page.locator("#summary")).to_contain_text("AdaFV")
    page.locator("#question").fill("Where are the whiskers?")
    page.keyboard.press("Control+Enter")
    expect(page.locator("[data-method=every] dl")).to_contain_text("first token")
    assert page.locator("#error").text_content() == ""
    page.locator("#photos button").nth(2).click()
    expect(page.locator("#question")).to_have_value("Where are the whiskers?")  # the visitor's own


def test_nothing_comes_from_elsewhere(page: Page, answering: Server) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    expect(page.locator("#photos img")).to_have_count(5)
    page.locator("#photos button").nth(2).click()
    expect(page.locator("#overlays img")).to_have_attribute("alt", "28 of 256 patches kept")
    assert asked and all(url.startswith((answering.url, "data:")) for url in asked)


def test_a_photograph_taken_before_the_server_has_answered_is_explained(page: Page) -> None:
    held: list[Route] = []
    page.route("**/vtprune/config", lambda route: held.append(route))
    page.reload()
    page.locator("#photos button").nth(1).click()
    expect(page.locator("#photos button").nth(1)).to_have_attribute("aria-pressed", "true")
    page.wait_for_timeout(500)  # long enough for a question asked too early to fail
    assert page.locator("#error").text_content() == ""
    for route in held:
        route.continue_()
    page.unroute("**/vtprune/config")
    expect(page.locator("#counts")).to_have_text("28 of 256 visual tokens kept")


def test_a_fault_is_shown_in_words(page: Page) -> None:
    page.evaluate("document.getElementById('rate').min = -1")
    _slide(page, -1)
    expect(page.locator("#error")).to_contain_text("rate is -1")
    _slide(page, 0.9)
    expect(page.locator("#error")).to_have_text("")


_OUTSIDE = """() => [...document.querySelectorAll("body *")].filter((one) => {
    const box = one.getBoundingClientRect();
    return box.width && (box.left < 0 || box.right > document.documentElement.clientWidth + 0.5);
}).map((one) => one.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(width: int, page: Page) -> None:
    page.set_viewport_size({"width": width, "height": 860})
    try:
        _ask(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(_OUTSIDE) == []
    finally:
        page.set_viewport_size({"width": 1280, "height": 860})
