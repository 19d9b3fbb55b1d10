"""What explanations and comparisons may cost the requests beside them."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import HTTPException
from media import encode, image_part, noise, photo_question, text_part
from vllm_server import Server
from vtprune_server.turns import Turns


class _Client:
    """What `Turns` asks of a request."""

    def __init__(self) -> None:
        self.gone = False

    async def is_disconnected(self) -> bool:
        return self.gone


def test_work_waits_for_its_turn_and_no_longer_than_its_client() -> None:
    running: list[str] = []

    async def work(name: str, release: asyncio.Event) -> str:
        running.append(name)
        await release.wait()
        return name

    async def scenario() -> None:
        turns, clients, release = (
            Turns("work", 1, waiting=2),
            [_Client() for _ in range(4)],
            asyncio.Event(),
        )
        tasks = []
        for name, client in zip("abc", clients, strict=False):
            tasks.append(asyncio.ensure_future(turns.take(client, work(name, release))))  # type: ignore[arg-type]
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        assert running == ["a"], "one at a time"
        with pytest.raises(HTTPException) as refused:
            await turns.take(clients[3], work("d", release))  # type: ignore[arg-type]
        assert (refused.value.status_code, "3" in refused.value.detail) == (429, True)
        clients[0].gone = clients[1].gone = True
        for task in tasks[:2]:
            with pytest.raises(HTTPException, match="408"):
                await task
        release.set()
        assert await tasks[2] == "c"
        assert running == ["a", "c"], "b's client left before its turn"
        assert await turns.take(clients[3], work("d", release)) == "d"  # type: ignore[arg-type]

    asyncio.run(scenario())


PICTURE = image_part(encode(noise(16, 16)), "image/png")


def _explain(server: Server, images: int, **body: Any) -> httpx.Response:
    message = {"role": "user", "content": [*[PICTURE] * images, text_part("What?")]}
    return server.client.post(
        "/vtprune/explain", json={"messages": [message], "overlay": False, **body}
    )


@pytest.mark.server
def test_more_images_than_are_explained_are_refused_unread(answering: Server) -> None:
    before = answering.preprocessed()
    response = _explain(answering, 400)
    assert response.status_code == 400, response.text
    assert "400 images; allowed: 16" in response.json()["error"]["message"]
    assert answering.preprocessed() == before


@pytest.mark.server
def test_a_prompt_longer_than_the_model_takes_is_refused_as_in_chat(answering: Server) -> None:
    """16 images of 256 tokens, unpruned."""
    response = _explain(answering, 16, vtprune={"rate": 0})
    assert response.status_code == 400, response.text
    said = "for a model of 4096 with room for an answer; allowed: request_tokens 4090 or less"
    assert said in response.json()["error"]["message"]
    assert _explain(answering, 16).status_code == 200


@pytest.mark.server
def test_chat_goes_between_explanations(answering: Server) -> None:
    """Twenty clients explain 16 images each, again and again: a chat does not wait for them all."""
    statuses: list[int] = []
    answered = threading.Event()

    def explain() -> None:
        while not answered.is_set():
            statuses.append(_explain(answering, 16).status_code)

    with ThreadPoolExecutor(20) as pool:
        explaining = [pool.submit(explain) for _ in range(20)]
        while len(statuses) < 3:
            time.sleep(0.01)
        before = len(statuses)
        answering.ask(photo_question(0, "what color are the tiles?"))
        meanwhile = len(statuses) - before
        answered.set()
        for each in explaining:
            each.result()
    assert set(statuses) == {200}
    assert meanwhile < 20, "it waited for every explanation that was there before it"


@pytest.mark.server
def test_a_comparison_ends_with_its_client(pruned: Server) -> None:
    """It would make 8 x 1,024 tokens, for the random model ends no sentence; its client waits for
    a fraction of a second. No second answer is begun. (The first one may be made to its end: vLLM
    does not take back a request that is on its way to the engine when its client leaves.)"""
    message = {"role": "user", "content": photo_question(1, "what color are the tiles?")}
    body = {"messages": [message], "settings": [{"rate": 0.5}] * 8, "max_tokens": 1024}
    before = pruned.metric("vllm:generation_tokens_total")
    with pytest.raises(httpx.ReadTimeout):
        pruned.client.post("/vtprune/compare", json=body, timeout=0.3)
    for _ in range(100):
        time.sleep(0.1)
        if not pruned.metric("vllm:num_requests_running"):
            break
    time.sleep(1.0)
    assert not pruned.metric("vllm:num_requests_running"), "it goes on"
    assert pruned.metric("vllm:generation_tokens_total") - before <= 1024
