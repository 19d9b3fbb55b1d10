"""Encoder disaggregation: one engine encodes and selects, another one prefills what was kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
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


@pytest.fixture
def pair(start: Callable[..., Server], tmp_path: Path) -> Pair:
    def engine(role: str, *arguments: str) -> Server:
        transfer = {
            "ec_connector": "ECExampleConnector",
            "ec_role": f"ec_{role}",
            "ec_connector_extra_config": {"shared_storage_path": str(tmp_path)},
        }
        model = str(Path(__file__).parents[2] / "demo" / "llava")
        flags = ["--plugin", "vtprune", "--ec-transfer-config", json.dumps(transfer)]
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
