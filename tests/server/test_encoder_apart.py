"""Encoder disaggregation: one engine encodes and selects, another one prefills what was kept."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from media import photo_question
from nightly import NIGHTLY
from safetensors import safe_open
from vllm_server import Server

pytestmark = [pytest.mark.server, NIGHTLY]

WIDTH = 128
"""Of the demo's decoder; in float32 a row has four times as many bytes."""

HEADER = 80
"""Bytes of a file of vLLM's example connector beside its rows."""


class Pair(NamedTuple):
    """Two servers, and the folder through which the first one's rows go to the second."""

    encoding: Server
    decoding: Server
    folder: Path

    def ask(self, **body: Any) -> dict[str, Any]:
        """Ask as a proxy does: the first one for no answer, the second one for it."""
        self.encoding.ask(CONTENT, **{**body, "max_tokens": 1})
        return self.decoding.ask(CONTENT, **body)

    def sent(self) -> dict[int, int]:
        """The bytes that went over for each image, by how many rows of `WIDTH` they are."""
        sizes = {}
        for file in self.folder.rglob("*.safetensors"):
            with safe_open(file, "pt") as tensors:
                rows, width = tensors.get_slice("ec_cache").get_shape()
            assert width == WIDTH
            sizes[rows] = file.stat().st_size
        return sizes


CONTENT = photo_question(0, "what color are the tiles?")


@pytest.fixture(params=["llava"])
def pair(request: pytest.FixtureRequest, start: Callable[..., Server], tmp_path: Path) -> Pair:
    def engine(role: str, *arguments: str) -> Server:
        transfer = {
            "ec_connector": "ECExampleConnector",
            "ec_role": f"ec_{role}",
            "ec_connector_extra_config": {"shared_storage_path": str(tmp_path)},
        }
        model = str(Path(__file__).parents[2] / "demo" / request.param)
        flags = ["--plugin", "vtprune", "--enable-scale-out"]
        flags += ["--ec-transfer-config", json.dumps(transfer)]
        return start(role, *flags, *arguments, model=model)

    return Pair(engine("producer"), engine("consumer"), tmp_path)


def test_what_is_kept_goes_over_and_is_counted_once(pair: Pair) -> None:
    own: list[dict[str, Any]] = [{}, {"tokens": 64}, {"method": "pool", "tokens": 16}, {"rate": 0}]
    answers = [pair.ask(vtprune=settings) for settings in own]
    kept = [answer["usage"]["visual_tokens"]["kept"] for answer in answers]
    assert kept == [28, 64, 16, 256]
    assert pair.sent() == {rows: 4 * WIDTH * rows + HEADER for rows in kept}
    assert pair.decoding.metric("vtprune_requests_total") == len(own)
    assert pair.decoding.metric("vtprune_feature_cache_misses_total") == 0, "nothing is encoded"
    assert pair.encoding.metrics("vtprune_requests_total") == {}
    assert pair.encoding.metric("vtprune_feature_cache_misses_total") == 1
    # A method that reads the question is for the engine that has the language model.
    body = {"vtprune": {"method": "adafv", "tokens": 40}}
    refused = pair.encoding.post(CONTENT, **body)
    assert refused.status_code == 400
    said = refused.json()["error"]["message"]
    assert (
        "or this one on an engine with the language model, which encodes the image itself" in said
    )
    assert pair.decoding.ask(CONTENT, **body)["usage"]["visual_tokens"]["kept"] == 40
    assert pair.decoding.metric("vtprune_feature_cache_misses_total") == 1


@pytest.mark.parametrize("pair", ["qwen"], indirect=True)
def test_an_image_comes_as_metadata_from_a_renderer_and_not_from_a_client(pair: Pair) -> None:
    """A renderer's has the plan with it. A client's has the picture's grid, as vLLM's encoding
    engine tells it, from which nobody knows what is kept."""
    for settings in ({}, {"rate": 0.75}, {"method": "pool", "tokens": 16}, {"rate": 0}):
        body = {"messages": [{"role": "user", "content": CONTENT}], "vtprune": settings}
        body |= {"model": "demo", "max_tokens": 6, "temperature": 0}
        answer = pair.encoding.client.post("/v1/chat/completions/render", json=body)
        assert answer.status_code == 200, answer.text
        rendered = {**answer.json(), "ec_transfer_params": _encoded(pair, settings)}
        found = []
        for data in (None, rendered["features"]["kwargs_data"]):
            pair.decoding.forget()
            sent = {**rendered, "features": {**rendered["features"], "kwargs_data": data}}
            answer = pair.decoding.client.post("/inference/v1/generate", json=sent)
            assert answer.status_code == 200, answer.text
            found.append(answer.json()["choices"][0]["token_ids"])
        assert found[0] == found[1]
    assert pair.decoding.metric("vtprune_feature_cache_misses_total") == 0, "nothing is encoded"
    for settings in ({}, {"rate": 0}):
        ((name, about),) = _encoded(pair, settings).items()
        part = {
            "type": "image_embeds",
            "uuid": name,
            "image_embeds": {key: _tensor(each) for key, each in about["metadata"].items()},
        }
        refused = pair.decoding.post([part, CONTENT[1]], vtprune=settings)
        assert refused.status_code == 400
        assert "image_embeds is given without its rows" in refused.json()["error"]["message"]
    assert pair.decoding.ask(CONTENT)


def _encoded(pair: Pair, settings: dict[str, Any]) -> dict[str, Any]:
    """What vLLM's encoding engine tells of an image that it encoded."""
    answer = pair.encoding.ask(CONTENT, vtprune=settings, max_tokens=1)
    told: dict[str, Any] = answer["ec_transfer_params"]
    return told


def _tensor(numbers: list[int]) -> str:
    file = io.BytesIO()
    torch.save(torch.tensor(numbers), file)
    return base64.b64encode(file.getvalue()).decode()
