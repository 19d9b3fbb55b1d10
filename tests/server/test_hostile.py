"""What one client sends changes nothing of what another one gets.

Attackers and victims of one server with two keys: names of images, refusals, early ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from media import PHOTOS, encode, image_part, noise, text_part
from vllm_process import MODELS
from vllm_server import Server

from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig

pytestmark = pytest.mark.server

VICTIM, ATTACKER = "key-of-the-victim", "key-of-the-attacker"
QUESTION = text_part("What is in this picture?")
CAT, ROCKET = (file.read_bytes() for file in (PHOTOS[0], PHOTOS[1]))
RATES = [(0.3, 0.5), (0.5, 0.5), (0.0, 0.0)]


@pytest.fixture(scope="module")
def server(start_shared: Callable[..., Server]) -> Server:
    keys = ["--api-key", VICTIM, ATTACKER]
    return start_shared(
        "hostile", "--plugin", "vtprune", *keys, "--limit-mm-per-prompt", '{"image": 2}'
    )


@pytest.fixture(autouse=True)
def nothing_is_known(server: Server) -> Iterator[None]:
    server.forget()
    yield


def post(server: Server, key: str, parts: list[Any], **body: Any) -> httpx.Response:
    server.client.headers["Authorization"] = f"Bearer {key}"
    return server.post([*parts, QUESTION], **body)


def answer(server: Server, key: str, part: Any, rate: float) -> tuple[str, float]:
    """What is answered about an image, and the first token's log probability."""
    body = {"vtprune": {"rate": rate}, "logprobs": True, "top_logprobs": 1}
    response = post(server, key, [part], **body)
    assert response.status_code == 200, response.text
    choice = response.json()["choices"][0]
    return choice["message"]["content"], choice["logprobs"]["content"][0]["logprob"]


def named(file: bytes | None, uuid: str) -> dict[str, Any]:
    """An image with its client's name for it, or the name alone."""
    part = {"type": "image_url", "image_url": None} if file is None else image_part(file)
    return {**part, "uuid": uuid}


def content_hash(file: bytes) -> str:
    """By what vLLM identifies an image, which anyone who has the file can compute."""
    from vllm.multimodal.hasher import MultiModalHasher
    from vllm.multimodal.media.image import ImageMediaIO

    image = ImageMediaIO().load_bytes(file)
    return MultiModalHasher.hash_kwargs("blake3", model_id=str(MODELS / "demo"), image=image)


@pytest.mark.parametrize(("of_attacker", "of_victim"), RATES, ids=str)
def test_an_image_called_as_another_one_is_identified_does_not_take_its_place(
    server: Server, of_attacker: float, of_victim: float
) -> None:
    alone = answer(server, VICTIM, image_part(CAT), of_victim)
    other = answer(server, VICTIM, image_part(ROCKET), of_victim)
    assert alone != other, "the two photographs have to be told apart"
    identity = content_hash(CAT)
    plan = ImagePlan(PruneConfig(rate=of_victim), identity)
    for victim_first in (False, True):
        server.forget()
        if victim_first:
            answer(server, VICTIM, image_part(CAT), of_victim)
        for uuid in (identity, plan.identity):
            answer(server, ATTACKER, named(ROCKET, uuid), of_attacker)
        assert answer(server, VICTIM, image_part(CAT), of_victim) == alone
        assert answer(server, ATTACKER, named(ROCKET, identity), of_victim) == other
    assert post(server, ATTACKER, [named(None, content_hash(CAT))]).status_code == 200


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_a_name_is_its_owners_and_stands_for_one_content(server: Server, rate: float) -> None:
    sent = answer(server, VICTIM, named(CAT, f"mine-{rate}"), rate)
    assert answer(server, VICTIM, named(None, f"mine-{rate}"), rate) == sent
    assert post(server, ATTACKER, [named(None, f"mine-{rate}")]).status_code == 400
    other = answer(server, ATTACKER, named(ROCKET, f"mine-{rate}"), rate)
    assert answer(server, ATTACKER, named(None, f"mine-{rate}"), rate) == other
    assert answer(server, VICTIM, named(None, f"mine-{rate}"), rate) == sent
    # Used for another content, it is answered by the content, and alone stands for neither.
    assert answer(server, VICTIM, named(ROCKET, f"mine-{rate}"), rate) == other
    refused = post(server, VICTIM, [named(None, f"mine-{rate}")])
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "uuid"


def test_a_name_alone_is_understood_by_every_route_and_at_every_rate(server: Server) -> None:
    messages = [{"role": "user", "content": [named(None, "everywhere"), QUESTION]}]
    with_content = [{"role": "user", "content": [named(CAT, "everywhere"), QUESTION]}]
    settings = [{"rate": 0.0}, {"rate": 0.5}]

    def routes(messages: list[Any], key: str) -> list[httpx.Response]:
        server.client.headers["Authorization"] = f"Bearer {key}"
        compared = {"messages": messages, "settings": settings, "max_tokens": 8}
        return [
            server.client.post("/vtprune/compare", json=compared),
            *(
                server.client.post("/vtprune/explain", json={"messages": messages, "vtprune": each})
                for each in settings[1:]
            ),
        ]

    def told(responses: list[httpx.Response]) -> list[Any]:
        compared, explained = (response.json() for response in responses)
        answers = [(each["text"], each["usage"]["prompt_tokens"]) for each in compared["answers"]]
        return [answers, explained]

    assert [each.status_code for each in routes(messages, VICTIM)] == [400, 400]
    answer(server, VICTIM, named(CAT, "everywhere"), 0.3)
    assert told(routes(messages, VICTIM)) == told(routes(with_content, VICTIM))
    assert [each.status_code for each in routes(messages, ATTACKER)] == [400, 400]
    for rate in (0.0, 0.3, 0.7):
        alone = answer(server, VICTIM, named(None, "everywhere"), rate)
        assert alone == answer(server, VICTIM, image_part(CAT), rate)


REFUSED: dict[str, dict[str, Any]] = {
    "top-logprobs": {"logprobs": True, "top_logprobs": 9999},
    "logit-bias": {"logit_bias": {"99999999": 1}},
    "regex": {"structured_outputs": {"regex": "(["}},
    "too-many-images": {},
}


@pytest.mark.parametrize("rate", [0.0, 0.5])
@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_leaves_nothing_that_breaks_the_next_request(
    server: Server, kind: str, rate: float
) -> None:
    image = image_part(encode(noise(64, 48)))
    alone = answer(server, VICTIM, image, rate)
    server.forget()
    images = [image] * (3 if kind == "too-many-images" else 1)
    refused = post(server, ATTACKER, images, vtprune={"rate": rate}, **REFUSED[kind])
    assert refused.status_code == 400, refused.text
    assert answer(server, VICTIM, image, rate) == alone


def test_a_client_cannot_write_its_own_usage(server: Server) -> None:
    counts = {"original": 576, "kept": 0}
    for parts in ([], [image_part(CAT)]):
        usage = post(server, ATTACKER, parts, vtprune_counts=counts).json()["usage"]
        assert usage.get("visual_tokens") != counts
        assert ("visual_tokens" in usage) == bool(parts)


def test_clients_that_hang_up_early_leave_nothing_either(server: Server) -> None:
    images = [image_part(encode(noise(32, 32, seed=seed))) for seed in range(160)]

    def hang_up(place: int) -> bool:
        message = {"role": "user", "content": [images[place], QUESTION]}
        body = {"model": "demo", "messages": [message], "max_tokens": 64}
        headers = {"Authorization": f"Bearer {ATTACKER}"}
        try:
            httpx.post(
                f"{server.url}/v1/chat/completions",
                json=body,
                headers=headers,
                timeout=httpx.Timeout(60, read=0.001 + 0.002 * place),
            )
        except httpx.ReadTimeout:
            return True
        return False

    with ThreadPoolExecutor(16) as pool:
        ended = sum(pool.map(hang_up, range(len(images))))
    assert ended >= len(images) // 2, "too few clients hung up"
    answers = [post(server, VICTIM, [image], max_tokens=1) for image in images]
    assert {answer.status_code for answer in answers} == {200}
