"""Methods of another package that break the contract, one way each (`faulty_methods.py`), installed
by entry points and asked for beside good requests: each fails its own request, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faulty_methods
import httpx
import pytest
from installed_package import declare_package
from media import encode, image_part, noise, photo_question, text_part
from python_path import path_with
from vllm_server import Server

from vllm_pruner.settings.defaults import DEFAULT_METHOD

pytestmark = pytest.mark.server

HERE = Path(__file__).parent
KEEP = 28
SAID = {
    "raises": "raised ZeroDivisionError: the author never saw this picture in select",
    "exits": "raised SystemExit: 1 in select",
    "none": "returned NoneType; allowed: indices int64 [1, 28] on cpu",
    "a-list": "returned list; allowed: indices int64 [1, 28] on cpu",
    "one-less": "returned int64 [1, 27] on cpu; allowed: indices int64 [1, 28] on cpu",
    "one-more": "returned int64 [1, 29] on cpu; allowed: indices int64 [1, 28] on cpu",
    "nan": "returned float32 [1, 28] on cpu; allowed: indices int64 [1, 28] on cpu",
    "a-mask": "returned bool [1, 576] on cpu; allowed: indices int64 [1, 28] on cpu",
    "int32": "returned int32 [1, 28] on cpu; allowed: indices int64 [1, 28] on cpu",
    "flat": "returned int64 [28] on cpu; allowed: indices int64 [1, 28] on cpu",
    "one-index": "returned index 548 after 548; allowed: ascending, each once",
    "falling": "returned index 574 after 575; allowed: ascending, each once",
    "beyond": "returned index 100548; allowed: 0 to 575",
    "negative": "returned index -99452; allowed: 0 to 575",
    "nan-rows": "returned rows with NaN or infinity; allowed: finite numbers",
    "infinite-rows": "returned rows with NaN or infinity; allowed: finite numbers",
    "huge-rows": "left an image rows with NaN, infinity or nearly so behind the projector",
    "spoils": "left an image rows with NaN, infinity or nearly so behind the projector",
    "narrow-rows": "returned rows float32 [1, 28, ",
    "double-rows": "returned rows float64 [1, 28, ",
    "undeclared-rows": "returned rows; allowed: indices alone of a method that does not say",
    "options-raise": "raised ZeroDivisionError: 1 in its options",
    "count-raises": "raised RuntimeError: no count today in keep_count",
    "count-none": "returned NoneType from keep_count; allowed: 1 to 576",
    "count-float": "returned 28.5 from keep_count; allowed: 1 to 576",
    "count-zero": "returned 0 from keep_count; allowed: 1 to 576",
    "count-million": "returned 1000000 from keep_count; allowed: 1 to 576",
    "grid-raises": "raised ZeroDivisionError: integer division or modulo by zero in shrink",
    "grid-other": "returned (28, 28) from shrink; allowed: rows and columns of 28 patches",
}
HANGING = {"loops": "did not return from select in 2 s", "sleeps": "did not return from select"}
GOOD = [{}, {"method": "good"}, {"method": "pool"}, {"rate": 0}]
"""Settings of the requests that stand beside the faulty ones."""


def _question(index: int) -> list[dict[str, Any]]:
    return photo_question(index)


def _fresh(seed: int) -> list[dict[str, Any]]:
    """A message about a picture that nobody sent before."""
    return [image_part(encode(noise(64, 48, seed=seed)), "image/png"), text_part("What is it?")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the package is installed, as pip leaves it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "faulty_methods.py").write_text((HERE / "faulty_methods.py").read_text())
    constants = {name: f"faulty_methods:{_constant(name)}" for name in faulty_methods.METHODS}
    declare_package(folder, "faulty", "vtprune.methods", constants)
    return folder


def _constant(name: str) -> str:
    return name.replace("-", "_").upper()


def _serve(site: Path, start: Callable[..., Server], name: str, *flags: str, **env: str) -> Server:
    env |= {
        "PYTHONPATH": path_with(site, HERE),
        "VLLM_VTPRUNE_METHOD_SECONDS": "2",
    }
    limits = json.dumps({"methods": [DEFAULT_METHOD, "pool", *faulty_methods.METHODS]})
    arguments = ["--plugin", "vtprune", "--prune-tokens", str(KEEP), "--prune-limits", limits]
    return start(name, *arguments, *flags, **env)


@pytest.fixture(scope="module")
def server(site: Path, start_shared: Callable[..., Server]) -> Server:
    return _serve(site, start_shared, "faulty")


def _at_once(server: Server, bodies: list[dict[str, Any]]) -> list[httpx.Response]:
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: server.post(**body), bodies))


def _good(first: int) -> list[dict[str, Any]]:
    return [
        {"content": _question(first + place), "vtprune": settings}
        for place, settings in enumerate(GOOD)
    ]


def _texts(responses: list[httpx.Response]) -> list[str]:
    assert [response.status_code for response in responses] == [200] * len(responses)
    return [response.json()["choices"][0]["message"]["content"] for response in responses]


def _check_fault(response: httpx.Response, name: str, said: str) -> None:
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (500, 500), response.text
    assert error["type"] == "InternalServerError"
    assert error["message"].startswith(f"vtprune: method '{name}' of package faulty {said}")


@pytest.fixture(scope="module")
def quiet(server: Server) -> list[str]:
    """What the good requests are answered while nothing else runs."""
    texts = _texts([server.post(**body) for body in _good(0)])
    server.forget()
    return texts


def test_every_fault_fails_its_own_request_beside_good_ones(
    server: Server, quiet: list[str]
) -> None:
    before = sum(server.metrics("vtprune_method_faults_total").values())
    for turn, (name, said) in enumerate(SAID.items()):
        body = {"content": _fresh(turn), "vtprune": {"method": name}}
        faulty, *others = _at_once(server, [body, *_good(0)])
        _check_fault(faulty, name, said)
        assert _texts(others) == quiet, f"neighbours of {name} answer otherwise"
        server.forget()
    counted = server.metrics("vtprune_method_faults_total")
    assert sum(counted.values()) - before == len(SAID)
    assert {f'vtprune_method_faults_total{{method="{name}"}}' for name in SAID} <= set(counted)


def test_a_fault_is_not_forgotten_by_what_vllm_caches(server: Server) -> None:
    """The second request finds the stand-in's rows and KV cached, and must not get an answer."""
    for _ in range(3):
        response = server.post(_question(3), vtprune={"method": "one-less"})
        _check_fault(response, "one-less", "returned int64 [1, 27]")
    assert server.text(_question(3), vtprune={"method": "good"})


def test_a_batch_of_the_wrong_shape_fails_as_one(server: Server) -> None:
    four = [image_part(encode(noise(40, 40, seed=seed)), "image/png") for seed in range(90, 94)]
    response = server.post([*four, text_part("What?")], vtprune={"method": "one-row"})
    # vLLM may part them: the first step has three of them to encode, or all four.
    said = response.json()["error"]["message"]
    assert response.status_code == 500
    assert re.search(r"'one-row' of package faulty returned int64 \[1, 28\] .* \[[2-4], 28\]", said)


def test_a_picture_at_which_a_method_raises_fails_alone(server: Server) -> None:
    """`odd` raises if one of a batch is odd; asked for another count, nothing is cached."""
    bodies = [{"content": _fresh(20 + seed)} for seed in range(8)]
    alone, together = (
        [{**body, "vtprune": {"method": "odd", "tokens": tokens}} for body in bodies]
        for tokens in (KEEP, KEEP + 1)
    )
    expected = [server.post(**body).status_code for body in alone]
    assert set(expected) == {200, 500}, "all pictures are alike"
    assert [response.status_code for response in _at_once(server, together)] == expected


def test_a_stream_begins_only_after_the_check(server: Server) -> None:
    response = server.post(_question(1), stream=True, vtprune={"method": "raises"})
    first, *_ = response.text.split("\n\n")
    error = json.loads(first.removeprefix("data: "))["error"]
    assert error["code"] == 500
    assert "method 'raises' of package faulty raised" in error["message"]
    assert '"choices"' not in response.text


def test_a_count_that_changes_does_not_part_prompt_and_rows(server: Server) -> None:
    kept = {
        server.ask(_fresh(seed), vtprune={"method": "dice"})["usage"]["visual_tokens"]["kept"]
        for seed in range(100, 103)
    }
    assert len(kept) == 1 and KEEP > kept.pop() > KEEP - 20


def test_a_method_that_does_not_return_fails_and_is_not_called_again(
    server: Server, quiet: list[str]
) -> None:
    for name, said in HANGING.items():
        body = {"content": _fresh(200), "vtprune": {"method": name}}
        faulty, *others = _at_once(server, [body, *_good(0)])
        _check_fault(faulty, name, said)
        assert _texts(others) == quiet
        again = server.post(_fresh(201), vtprune={"method": name})
        _check_fault(again, name, said)
        server.forget()


def test_the_routes_say_the_same(server: Server) -> None:
    messages = [{"role": "user", "content": _question(2)}]
    for route, body in {
        "explain": {"messages": messages, "vtprune": {"method": "raises"}},
        "compare": {"messages": messages, "settings": [{"method": "raises"}]},
        "estimate": {"images": [{"width": 8, "height": 8}], "vtprune": {"method": "count-zero"}},
    }.items():
        response = server.client.post(f"/vtprune/{route}", json=body)
        assert response.status_code == 500, response.text
        assert " of package faulty r" in response.json()["error"]["message"]
    cards = server.client.get("/vtprune/methods").json()["methods"]
    allowed = {card["name"] for card in cards if card["allowed"]}
    assert allowed == {DEFAULT_METHOD, "pool", *faulty_methods.METHODS} - {"options-raise"}


def test_after_all_of_them_fresh_pictures_are_answered_as_before(
    server: Server, quiet: list[str]
) -> None:
    """Merged rows of NaN outlived their requests in blocks of the KV cache that others got."""
    rows = {"vtprune": {"method": "nan-rows"}}
    _at_once(server, [{"content": _fresh(300 + seed), **rows} for seed in range(16)])
    answers = [server.ask(_fresh(400 + seed), logprobs=True) for seed in range(16)]
    for answer in answers:
        assert all(token["logprob"] <= 0 for token in answer["choices"][0]["logprobs"]["content"])
    server.forget()
    assert _texts(_at_once(server, _good(0))) == quiet
    assert server.client.get("/health").status_code == 200


def test_two_ranks_go_on_after_a_fault_of_the_first(
    site: Path, start: Callable[..., Server]
) -> None:
    """Only the first rank calls the method; the other one waits for what it made of it."""
    ranks = ["--tensor-parallel-size", "2"]
    server = _serve(site, start, "faulty-2", *ranks, VLLM_CPU_OMP_THREADS_BIND="0|1")
    before = _texts(_at_once(server, _good(0)))
    for name in ("raises", "one-less", "nan-rows", "spoils", "loops"):
        response = server.post(_question(1), vtprune={"method": name})
        _check_fault(response, name, {**SAID, **HANGING}[name])
    server.forget()
    assert _texts(_at_once(server, _good(0))) == before
