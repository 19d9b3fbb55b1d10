"""A configuration that was pickled in one process serves in another as in the one that made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from forked import run
from media import photo_question
from vllm_process import environment

pytestmark = pytest.mark.server

HERE = Path(__file__).parent
MODEL = HERE.parents[1] / "demo" / "llava"
SETTINGS = {"rate": 0.75, "limits": {"max_rate": 0.9}}


def _chat(**body: Any) -> list[Any]:
    message = {"role": "user", "content": photo_question(0, "what color are the tiles?")}
    body = {"model": "demo", "messages": [message], "max_tokens": 4, "temperature": 0, **body}
    return ["/v1/chat/completions", body]


REQUESTS: dict[str, list[Any]] = {
    "server's": _chat(),
    "own": _chat(vtprune={"method": "adafv", "tokens": 40}),
    "off": _chat(vtprune={"rate": 0}),
    "beyond": _chat(vtprune={"rate": 0.95}),
    "config": ["/vtprune/config"],
    "metrics": ["/metrics"],
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("unpickled")
    config, requests = folder / "config.pickle", folder / "requests.json"
    requests.write_text(json.dumps(list(REQUESTS.values())))
    # Two processes: what the first one has installed dies with it.
    made = run(
        [str(HERE / "pickled_config.py"), str(MODEL), json.dumps(SETTINGS), str(config)],
        environment(),
        folder,
        timeout=300,
    )
    assert made.returncode == 0, made.stderr[-4000:]
    served = run(
        [str(HERE / "unpickled_server.py"), str(config), str(requests)],
        environment(),
        folder,
        timeout=300,
    )
    assert served.returncode == 0, served.stderr[-4000:]
    (line,) = [line for line in served.stdout.splitlines() if line.startswith("answers ")]
    return dict(zip(REQUESTS, json.loads(line.removeprefix("answers ")), strict=True))


@pytest.mark.parametrize(("name", "kept"), [("server's", 64), ("own", 40)])
def test_settings_of_server_and_body_hold(
    name: str, kept: int, answers: dict[str, list[Any]]
) -> None:
    status, completion = answers[name]
    assert status == 200, completion
    assert completion["usage"]["visual_tokens"] == {"original": 256, "kept": kept}


def test_a_body_turns_it_off(answers: dict[str, list[Any]]) -> None:
    status, completion = answers["off"]
    assert status == 200, completion
    pruned = answers["server's"][1]["usage"]["prompt_tokens"]
    assert completion["usage"]["prompt_tokens"] - pruned == 256 - 64


def test_a_bad_setting_is_refused(answers: dict[str, list[Any]]) -> None:
    status, refused = answers["beyond"]
    assert status == 400, refused
    assert "0.95" in refused["error"]["message"] and "0.9" in refused["error"]["message"]


def test_routes_and_counters_are_there(answers: dict[str, list[Any]]) -> None:
    status, config = answers["config"]
    assert status == 200, config
    assert json.loads(config)["settings"]["rate"] == SETTINGS["rate"]
    assert 'vtprune_images_total{method="adafv"' in answers["metrics"][1]
