"""Ray Serve LLM with vtprune in its replicas, by `examples/ray_serve.py`: two of them, both ways in
which Ray lets a request through to one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from media import photo_question
from ray_here import NEEDS_RAY, ROOT, descendants, running

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(1800), NEEDS_RAY]

ADDRESS = "http://127.0.0.1:8000"
"""Where Ray Serve listens unless it is configured."""

DASHBOARD = "http://127.0.0.1:8265"

WAYS = {
    "ingress": {
        "RAY_SERVE_LLM_ROUTER_MIN_REPLICAS": "1",
        "RAY_SERVE_LLM_ROUTER_INITIAL_REPLICAS": "1",
    },
    "direct": {"RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"},
}
"""Ray's own OpenAI router, one of it where two do no more; and vLLM's routes in each replica."""

REPLICA = "ServeReplica:default:LLMServer"


class Served:
    """A running example."""

    def __init__(self, way: str, process: psutil.Popen, http: httpx.Client) -> None:
        self.way, self.process, self.http = way, process, http

    def ask(self, question: str = "what color are the tiles?", **body: Any) -> httpx.Response:
        content = body.pop("content", None) or photo_question(0, question)
        message = {"role": "user", "content": content}
        body = {"model": "demo", "messages": [message], "max_tokens": 4, "temperature": 0, **body}
        return self.http.post("/v1/chat/completions", json=body)

    def replicas(self) -> list[psutil.Process]:
        return descendants(self.process, REPLICA)


@pytest.fixture(scope="module", params=WAYS)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    log = tmp_path_factory.mktemp("ray") / "log"
    call = ("ray_serve.py", str(ROOT / "demo" / "llava"), "2")
    with (
        running(log, *call, **WAYS[request.param]) as process,
        httpx.Client(base_url=ADDRESS, timeout=60) as http,
    ):
        served = Served(request.param, process, http)
        _wait(served, lambda: log.read_text()[-6000:])
        yield served


def _wait(served: Served, log: Any) -> None:
    """Wait until Ray says that all replicas are there."""
    end = time.monotonic() + 900
    while time.monotonic() < end:
        assert served.process.poll() is None, log()
        try:
            said = httpx.get(f"{DASHBOARD}/api/serve/applications/").json()
            if said["applications"]["default"]["status"] == "RUNNING":
                return
        except (httpx.HTTPError, ValueError, KeyError):
            pass
        time.sleep(1)
    raise AssertionError(log())


@pytest.mark.parametrize(
    ("settings", "kept"), [(None, 64), ({"method": "adafv", "tokens": 40}, 40), ({"rate": 0}, 256)]
)
def test_settings_and_counts(served: Served, settings: Any, kept: int) -> None:
    response = served.ask(**({} if settings is None else {"vtprune": settings}))
    assert response.status_code == 200, response.text
    usage = response.json()["usage"]
    assert usage["visual_tokens"] == {"original": 256, "kept": kept}
    header = response.headers.get("x-vtprune-kept-tokens")
    assert header == {"ingress": None, "direct": str(kept)}[served.way]


def test_detail_is_heard(served: Served) -> None:
    content = photo_question(0, "what color are the tiles?")
    content[0]["image_url"]["detail"] = "high"
    usage = served.ask(content=content).json()["usage"]
    assert usage["visual_tokens"] == {"original": 256, "kept": 128}


def test_the_last_chunk_has_the_counts(served: Served) -> None:
    response = served.ask(stream=True, stream_options={"include_usage": True})
    lines = [line for line in response.text.splitlines() if line.startswith("data: {")]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert len(chunks) > 2
    assert chunks[-1]["usage"]["visual_tokens"] == {"original": 256, "kept": 64}


@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_setting_is_refused(served: Served, stream: bool) -> None:
    response = served.ask(vtprune={"rate": 0.95}, stream=stream)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert "0.95" in error["message"] and "0.9" in error["message"]
    # Ray's router makes its own error of the message; vLLM's has the parameter.
    assert error["param"] == {"ingress": None, "direct": "vtprune"}[served.way]


def test_routes(served: Served) -> None:
    response = served.http.get("/vtprune/config")
    messages = served.http.post("/v1/messages", json={})
    if served.way == "ingress":
        assert response.status_code == messages.status_code == 404
    else:
        assert response.json()["settings"]["rate"] == 0.75
        assert messages.status_code == 400


def test_counters_are_in_rays_exporter(served: Served) -> None:
    """Of both replicas, which are told apart."""
    folder = Path(served.process.environ()["RAY_TMPDIR"]) / "ray" / "session_latest"
    (found,) = json.loads((folder / "prom_metrics_service_discovery.json").read_text())
    for _ in range(8):
        served.ask(vtprune={"method": "random", "tokens": 33})
    end, counted = time.monotonic() + 60, 0.0
    while time.monotonic() < end and counted < 8:
        time.sleep(1)
        texts = [httpx.get(f"http://{target}/metrics").text for target in found["targets"]]
        lines = [line for text in texts for line in text.splitlines()]
        images = [line for line in lines if line.startswith("ray_vtprune_images_total{")]
        ours = [line for line in images if 'method="random"' in line]
        counted = sum(float(line.rpartition(" ")[2]) for line in ours)
    assert counted == 8, images
    assert len({line.partition('ReplicaId="')[2].partition('"')[0] for line in ours}) == 2


def test_a_killed_replica_loses_no_request_that_is_sent_again(served: Served) -> None:
    client = openai.OpenAI(base_url=f"{ADDRESS}/v1", api_key="none", max_retries=8, timeout=60)
    victim = served.replicas()[0]

    def ask(number: int) -> int:
        if number == 12:
            victim.kill()
        answer: Any = client.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": photo_question(number, f"{number}?")}],
            max_tokens=4,
            extra_body={"vtprune": {"tokens": 30 + number}},
        )
        return int(answer.usage.visual_tokens["kept"])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(48))) == [30 + number for number in range(48)]
    end = time.monotonic() + 300
    while time.monotonic() < end and len(served.replicas()) < 2:
        time.sleep(1)
    assert len(served.replicas()) == 2
    assert victim.pid not in [each.pid for each in served.replicas()]
