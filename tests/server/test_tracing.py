"""Where vLLM traces, its span of a request says what became of the images."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from media import photo_question, text_part
from otlp_collector import Collector, attributes
from vllm_server import Server

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(collector: Collector, start_shared: Callable[..., Server]) -> Server:
    flags = ["--plugin", "vtprune", "--otlp-traces-endpoint", collector.endpoint]
    return start_shared("traced", *flags, OTEL_BSP_SCHEDULE_DELAY="100")


def _span(server: Server, collector: Collector, content: Any, **body: Any) -> dict[str, Any]:
    """Ask as a part of a trace, and return the attributes of the span that vLLM makes of it."""
    trace, parent = secrets.token_hex(16), secrets.token_hex(8)
    server.client.headers["traceparent"] = f"00-{trace}-{parent}-01"
    try:
        response = server.post(content, **body)
    finally:
        del server.client.headers["traceparent"]
    assert response.status_code == 200, response.text
    span = collector.span_of(trace)
    assert span.parent_span_id.hex() == parent
    found = attributes(span)
    if not body.get("stream"):
        assert found["gen_ai.usage.prompt_tokens"] == response.json()["usage"]["prompt_tokens"]
    return found


def _ours(span: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in span.items() if name.startswith("vtprune")}


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"n": 2}], ids=str)
def test_the_span_of_a_request_carries_the_counts(
    traced: Server, collector: Collector, more: dict[str, Any]
) -> None:
    more = {"temperature": 0.5, **more} if "n" in more else more
    settings = {"method": "adafv", "tokens": 72}
    span = _span(traced, collector, photo_question(0), vtprune=settings, **more)
    assert _ours(span) == {
        "vtprune.images": 1,
        "vtprune.visual_tokens.original": 576,
        "vtprune.visual_tokens.kept": 72,
        "vtprune.method": "adafv",
        "vtprune.rate": 0.875,
    }


def test_images_of_different_rates_are_one_rate_of_the_request(
    traced: Server, collector: Collector
) -> None:
    first, second = (photo_question(index)[0] for index in (0, 1))
    first["image_url"]["detail"], second["image_url"]["detail"] = "low", "high"
    found = _ours(_span(traced, collector, [first, second, text_part("Compare.")]))
    kept = found["vtprune.visual_tokens.kept"]
    assert (found["vtprune.images"], found["vtprune.visual_tokens.original"]) == (2, 1152)
    assert found["vtprune.rate"] == pytest.approx(1 - kept / 1152)


def test_what_is_not_pruned_has_vllms_span_alone(traced: Server, collector: Collector) -> None:
    assert _ours(_span(traced, collector, [text_part("No image.")])) == {}
    assert _ours(_span(traced, collector, photo_question(0), vtprune={"rate": 0})) == {}


def test_a_client_that_hangs_up_leaves_the_server_well(
    traced: Server, collector: Collector
) -> None:
    body = {"messages": [{"role": "user", "content": photo_question(1)}], "max_tokens": 2000}
    body |= {"stream": True, "ignore_eos": True}
    with traced.client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert next(response.iter_lines()).startswith("data: ")
    assert _ours(_span(traced, collector, photo_question(1)))["vtprune.visual_tokens.kept"] == 64
    running = traced.metric("vllm:num_requests_running")
    assert running == 0, json.dumps(traced.metrics("vllm:num_requests"))
