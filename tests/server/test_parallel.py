"""Two ranks that share the pictures of a tower out, or its heads and those of any family, and two
engines side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from media import PHOTOS, clip, photo_question, text_part, video_part
from nightly import NIGHTLY
from vllm_server import Server

pytestmark = [pytest.mark.server, NIGHTLY]

TWO_CORES = {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
QUESTIONS = [photo_question(number) for number in range(len(PHOTOS))]
SETTINGS: list[dict[str, Any]] = [{}, {"rate": 0.75}, {"rate": 0}]


@pytest.mark.parametrize("mode", ["weights", "data"])
def test_both_ways_of_sharing_a_tower_keep_as_much(start: Callable[..., Server], mode: str) -> None:
    flags = ["--plugin", "vtprune", "--tensor-parallel-size", "2", "--mm-encoder-tp-mode", mode]
    server = start(f"tp-{mode}", *flags, model="demo-qwen2.5", **TWO_CORES)
    for settings in SETTINGS:
        server.forget()
        server.rpc("start_probe")
        for content in QUESTIONS:
            usage = server.ask(content, vtprune=settings)["usage"]["visual_tokens"]
            if settings.get("rate") == 0:
                assert usage["kept"] == usage["original"]
            else:
                assert usage["kept"] < usage["original"]
        first, second = server.rpc("read_probe")
        assert first["kept"] == second["kept"]
        assert len(first["kept"]) == (0 if settings.get("rate") == 0 else len(QUESTIONS))


FAMILIES = [
    *("demo-glm4v", "demo-qwen2.5", "demo-qwen3", "demo-qwen3.5"),
    *("demo-internvl", "demo-internvl-chat", "demo-mistral3", "demo-pixtral"),
    *("demo-onevision", "demo-idefics3", "demo-smolvlm", "demo-gemma3", "demo-gemma4"),
    *("demo-kimi", "demo-kimi-k2.5", "demo-llama4", "demo-qwen2.5-omni", "demo-qwen3-omni"),
    *("demo-minicpmv4.5", "demo-minicpm4.7", "demo-cohere2", "demo-lfm2", "demo-nemotron-omni"),
    *("demo-molmo2", "demo-keye1.5", "demo-step"),
]
BFLOAT16 = ("demo-qwen3.5", "demo-minicpm4.7", "demo-nemotron-omni")
"""vLLM's linear attention on a CPU knows no other dtype, nor does its Nemotron anywhere."""

OTHERWISE = ("demo-kimi", "demo-kimi-k2.5", "demo-lfm2")
"""Whose experts round to other answers on two ranks; and whose heads a rank of a CPU rotates right
if it has one alone (`rotary`)."""


@pytest.mark.parametrize("model", FAMILIES)
def test_two_ranks_keep_the_tokens_of_one(start: Callable[..., Server], model: str) -> None:
    """Each holds half of the tower's heads, of Gemma 4's all. Where the same is kept, the same is
    answered, unless two ranks round to another answer with nothing pruned, too. In bfloat16 every
    picture keeps some others."""
    flags = ["--plugin", "vtprune", "--prune-rate", "0.5", "--trust-remote-code"]
    coarse = model in BFLOAT16
    flags += ["--dtype", "bfloat16"] if coarse else []
    # With a cache of prompts vLLM's Mamba ends an engine on a CPU.
    flags += ["--no-enable-prefix-caching"] if "nemotron" in model else []
    one, answers, whole = _kept_by(start(model, *flags, model=model))
    first, second, on_two, whole_on_two = _kept_by(
        start(f"{model}-tp2", *flags, "--tensor-parallel-size", "2", model=model, **TWO_CORES)
    )
    assert first == second
    assert len(one["kept"]) == len(first["kept"]) == len(QUESTIONS)
    for here, there in zip(one["importance"], first["importance"], strict=True):
        assert there == pytest.approx(here, rel=3e-2 if coarse else 1e-3, abs=1e-6)
    shared = sum(len({*a} & {*b}) for a, b in zip(one["kept"], first["kept"], strict=True))
    least = 0.85 if coarse else 0.95  # rounding may exchange the last ones
    assert shared >= least * sum(map(len, one["kept"]))
    places = [n for n, kept in enumerate(one["kept"]) if kept == first["kept"][n]]
    assert places or coarse
    stable = [place for place in places if whole[place] == whole_on_two[place]]
    assert stable or coarse or model in OTHERWISE
    for place in stable:
        assert answers[place] == on_two[place]


def test_two_ranks_embed_what_is_between_joined_frames(start: Callable[..., Server]) -> None:
    """Each holds half of the words. With all frames whole, the answer is that of the times as
    text."""
    flags = ["--plugin", "vtprune", "--tensor-parallel-size", "2"]
    server = start("tp2-frames", *flags, model="demo-qwen3", **TWO_CORES)
    content = [video_part(clip(8)), text_part("What happens?")]
    joined = server.ask(content, vtprune={"rate": 1e-12, "video_method": "evs"})
    apart = server.ask(content, vtprune={"rate": 0})
    assert joined["choices"][0]["message"] == apart["choices"][0]["message"]
    assert joined["usage"]["prompt_tokens"] == apart["usage"]["prompt_tokens"]
    half = server.ask(content, vtprune={"rate": 0.5, "video_method": "evs"})
    assert half["choices"][0]["message"] != apart["choices"][0]["message"]


def _kept_by(server: Server) -> list[Any]:
    """What each rank kept of every photograph, then what was answered, and last what is answered
    where nothing is pruned."""
    server.rpc("start_probe")
    answers = [server.text(content) for content in QUESTIONS]
    return [
        *(
            {name: each[name] for name in ("kept", "importance")}
            for each in server.rpc("read_probe")
        ),
        answers,
        [server.text(content, vtprune={"rate": 0}) for content in QUESTIONS],
    ]


def test_engines_side_by_side_are_counted_apart(start: Callable[..., Server]) -> None:
    flags = ["--plugin", "vtprune", "--data-parallel-size", "2"]
    server = start("dp2", *flags, **TWO_CORES)
    server.texts_at_once(QUESTIONS * 2)
    misses = server.metrics("vtprune_feature_cache_misses_total")
    assert set(misses) == {
        f'vtprune_feature_cache_misses_total{{engine="{index}"}}' for index in range(2)
    }
    assert all(count > 0 for count in misses.values())
    assert server.metric("vtprune_requests_total") == 2 * len(QUESTIONS)
