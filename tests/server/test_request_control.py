"""Per-request and per-image settings over HTTP, within the operator's limits, and what the answer
says about them. The server does not trust requests' processor settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from media import PHOTOS, data_url, photo_question, text_part
from vllm_server import Server

pytestmark = pytest.mark.server

LIMITS = {"max_rate": 0.97, "min_tokens": 18, "methods": ["vispruner", "adafv", "attention"]}


@pytest.fixture(scope="module")
def bounded(start_shared: Callable[..., Server]) -> Server:
    limits = ["--prune-limits", json.dumps(LIMITS), "--prune-detail", '{"low": 0.9375}']
    return start_shared("bounded", "--plugin", "vtprune", *limits, compiled=True)


def _image(index: int, **fields: Any) -> dict[str, Any]:
    url = data_url(PHOTOS[index].read_bytes())
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def _counts(answer: dict[str, Any]) -> Any:
    return answer["usage"].get("visual_tokens")


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (None, 64),
        ({}, 64),
        ({"rate": 0.5}, 288),
        ({"tokens": 100}, 100),
        ({"method": "adafv"}, 64),
        ({"method": "attention", "tokens": 18}, 18),
        ({"options": {"important_ratio": 1}}, 64),
    ],
    ids=str,
)
def test_the_body_sets_the_budget_and_usage_reports_it(
    settings: Any, kept: int, bounded: Server, stock: Server
) -> None:
    body = {} if settings is None else {"vtprune": settings}
    answer = bounded.ask(photo_question(0), **body)
    assert _counts(answer) == {"original": 576, "kept": kept}
    unpruned = stock.ask(photo_question(0))["usage"]
    assert "visual_tokens" not in unpruned
    assert unpruned["prompt_tokens"] - answer["usage"]["prompt_tokens"] == 576 - kept


def test_rate_0_answers_as_stock_does_and_reports_nothing(bounded: Server, stock: Server) -> None:
    bounded.forget()
    stock.forget()  # other tests share it and may have asked the same: usage counts what was cached
    answer, expected = (
        bounded.ask(photo_question(1), vtprune={"rate": 0}),
        stock.ask(photo_question(1)),
    )
    assert answer["choices"] == expected["choices"]
    assert answer["usage"] == expected["usage"]
    text = [text_part("No image here.")]
    assert bounded.ask(text)["usage"] == stock.ask(text)["usage"]


def test_a_body_and_a_trusted_setting_mean_the_same(bounded: Server, pruned: Server) -> None:
    settings = {"method": "adafv", "tokens": 40}
    trusted = pruned.text(photo_question(2), mm_processor_kwargs={"vtprune": settings})
    assert bounded.text(photo_question(2), vtprune=settings) == trusted
    assert pruned.text(photo_question(2), vtprune=settings) == trusted
    both = pruned.post(photo_question(2), vtprune={}, mm_processor_kwargs={"vtprune": {}})
    assert both.status_code == 400
    assert "given twice" in both.json()["error"]["message"]


def test_detail_is_per_image(bounded: Server) -> None:
    content = [
        _image(0, detail="low"),
        _image(1, detail="auto"),
        _image(2, detail="high"),
        _image(3),
        text_part("Compare them."),
    ]
    assert _counts(bounded.ask(content)) == {"original": 4 * 576, "kept": 36 + 64 + 288 + 64}
    mixed = bounded.ask(content, vtprune={"rate": 0})
    assert _counts(mixed) == {"original": 4 * 576, "kept": 36 + 3 * 576}


def test_an_image_left_alone_beside_a_pruned_one_is_the_stock_image(
    bounded: Server, stock: Server
) -> None:
    """The unpruned image comes first, so its part of the prompt is the stock one to the end."""
    content = [_image(0), _image(1, detail="low"), text_part("Compare.")]
    bounded.forget()
    mixed = bounded.text(content, vtprune={"rate": 0})
    assert bounded.text(photo_question(0), vtprune={"rate": 0}) == stock.text(photo_question(0))
    assert bounded.text(content, vtprune={"rate": 0}) == mixed
    bounded.forget()
    assert bounded.text(content, vtprune={"rate": 0}) == mixed


def test_the_last_streamed_chunk_reports_too(bounded: Server) -> None:
    whole = bounded.ask(photo_question(0), vtprune={"tokens": 50})
    options = {"stream": True, "stream_options": {"include_usage": True}}
    events = bounded.post(photo_question(0), vtprune={"tokens": 50}, **options).text.split("\n\n")
    assert [event for event in events if event][-1] == "data: [DONE]"
    chunks = [json.loads(e.removeprefix("data: ")) for e in events if e and "[DONE]" not in e]
    assert chunks[-1]["usage"] == {
        key: value for key, value in whole["usage"].items() if value is not None
    }
    assert _counts(chunks[-1]) == {"original": 576, "kept": 50}
    pieces = [c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"]]
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]


def test_a_response_reports_too(bounded: Server) -> None:
    picture = {"type": "input_image", "image_url": data_url(PHOTOS[0].read_bytes())}
    content = [{**picture, "detail": "auto"}, {"type": "input_text", "text": "What?"}]
    body = {"model": "demo", "input": [{"role": "user", "content": content}]}
    body |= {"vtprune": {"tokens": 50}, "max_output_tokens": 4, "temperature": 0}
    whole = bounded.client.post("/v1/responses", json=body)
    assert whole.status_code == 200, whole.text
    assert _counts(whole.json()) == {"original": 576, "kept": 50}
    lines = bounded.client.post("/v1/responses", json={**body, "stream": True}).text.splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line[:6] == "data: "]
    (last,) = [event for event in events if event["type"] == "response.completed"]
    assert _counts(last["response"]) == {"original": 576, "kept": 50}
    unpruned = bounded.client.post("/v1/responses", json={**body, "vtprune": {"rate": 0}}).json()
    assert "visual_tokens" not in unpruned["usage"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"vtprune": {"rate": 0.98}}, "rate is 0.98; allowed here: rates from 0 to 0.97"),
        ({"vtprune": {"tokens": 4}}, "tokens is 4; allowed here: 18 or more"),
        ({"vtprune": {"method": "random"}}, "allowed here: vispruner, adafv, attention"),
        ({"vtprune": {"rate": 0.97}}, "which keeps 17 of an image's 576 tokens"),
        ({"vtprune": {"rate": 1}}, "rate is 1; it should be less than 1"),
        ({"vtprune": {"tokens": 600}}, "tokens is 600; allowed: 1 to 576"),
        ({"vtprune": 0.5}, "settings are 0.5"),
        ({"vtprune": {"detail": ["low"]}}, "detail is ['low'] but there is no such key"),
        ({"mm_processor_kwargs": {"vtprune": {"rate": 0.5}}}, "--trust-request-mm-kwargs"),
        ({"vtprune": {}, "mm_processor_kwargs": {"do_resize": False}}, "--trust-request-mm-kwargs"),
        ({"vtprune": {}, "media_io_kwargs": {"image": {}}}, "--trust-request-mm-kwargs"),
    ],
    ids=str,
)
def test_out_of_bounds_is_a_400_that_says_them(body: Any, sentence: str, bounded: Server) -> None:
    response = bounded.post(photo_question(0), **body)
    assert response.status_code == 400
    assert sentence in response.json()["error"]["message"]
    assert bounded.text(photo_question(0))


def test_bad_settings_without_an_image_and_bad_details_are_refused(bounded: Server) -> None:
    response = bounded.post([text_part("Hello.")], vtprune={"rate": 2})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "vtprune")
    response = bounded.post([_image(0, detail="tiny"), text_part("What?")])
    assert response.status_code == 400
    assert "detail is 'tiny'; allowed: auto, low, high" in response.json()["error"]["message"]


def test_requests_with_different_settings_at_once_are_answered_as_alone(bounded: Server) -> None:
    bodies = [
        {"vtprune": {"method": method, "tokens": tokens}}
        for method in ("vispruner", "adafv", "attention")
        for tokens in (20, 64, 200)
    ]
    alone = []
    for index, body in enumerate(bodies):
        bounded.forget()
        alone.append(bounded.text(photo_question(index), **body))
    bounded.forget()
    with ThreadPoolExecutor(len(bodies)) as pool:
        together = pool.map(
            lambda pair: bounded.text(photo_question(pair[0]), **pair[1]), enumerate(bodies)
        )
    assert list(together) == alone
