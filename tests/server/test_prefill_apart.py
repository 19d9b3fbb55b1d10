"""Prefill/decode disaggregation: one engine computes a prompt's KV, another one answers from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from media import PHOTOS, image_part
from nightly import NIGHTLY
from vllm_server import Server

pytestmark = [pytest.mark.server, NIGHTLY]

BLOCK = 32
"""Tokens of a block of KV; the connector stores whole ones."""

DEMOS = Path(__file__).parents[2] / "demo"

SETTINGS: list[dict[str, Any]] = [
    {},
    {"rate": 0.75},
    {"method": "cdpruner", "tokens": 24},
    {"method": "pool", "tokens": 16},
    {"rate": 0},
]


class Pair(NamedTuple):
    """Two servers of one model, and the folder through which KV goes from the first one on."""

    prefilling: Server
    answering: Server
    folder: Path

    def prompts(self) -> int:
        """How many prompts lie in the folder."""
        return sum(1 for prompt in self.folder.iterdir() if any(prompt.iterdir()))


@pytest.fixture(params=["llava", "qwen"])
def pair(request: pytest.FixtureRequest, start: Callable[..., Server], tmp_path: Path) -> Pair:
    transfer = {
        "kv_connector": "ExampleConnector",
        "kv_role": "kv_both",
        "kv_connector_extra_config": {"shared_storage_path": str(tmp_path)},
    }
    flags = ["--plugin", "vtprune", "--no-enable-prefix-caching", "--block-size", str(BLOCK)]
    flags += ["--kv-transfer-config", json.dumps(transfer)]
    model = str(DEMOS / request.param)
    return Pair(
        start(f"{request.param}-prefills", *flags, model=model),
        start(f"{request.param}-answers", *flags, model=model),
        tmp_path,
    )


def test_an_answer_from_another_engines_kv_is_that_engines_answer(pair: Pair) -> None:
    def ask(server: Server, settings: dict[str, Any]) -> tuple[int, list[tuple[str, float]]]:
        body = server.ask(content, vtprune=settings, logprobs=True, max_tokens=8, ignore_eos=True)
        said = body["choices"][0]["logprobs"]["content"]
        return body["usage"]["prompt_tokens"], [(each["token"], each["logprob"]) for each in said]

    content = [
        image_part(PHOTOS[0].read_bytes()),
        {"type": "text", "text": "what color are the tiles, and what is behind them?" * 4},
    ]
    computed = [ask(pair.prefilling, settings) for settings in SETTINGS]
    assert pair.prompts() == len(SETTINGS), "each setting is a prompt of its own"
    assert [ask(pair.answering, settings) for settings in reversed(SETTINGS)] == computed[::-1]
    whole_blocks = sum((tokens - 1) // BLOCK * BLOCK for tokens, _ in computed)
    assert pair.answering.metric("vllm:external_prefix_cache_hits_total") == whole_blocks
    assert pair.answering.metric("vtprune_feature_cache_misses_total") == 0, "no tower has run"
