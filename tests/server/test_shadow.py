"""Shadows of real answers: what they say, and that nobody but the operator hears of them."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from media import image_part, text_part
from PIL import Image
from vllm_server import Server
from vtprune_evaluate.datasets.synthetic import SYNTHETIC

from vllm_pruner.settings.defaults import DEFAULT_METHOD

pytestmark = pytest.mark.server

LLAVA = str(Path(__file__).parents[2] / "demo" / "llava")
HARSH, MILD = {"method": "random", "tokens": 6}, {"rate": 0.5}
"""Settings, of a model with 256 visual tokens an image."""
LABELS = {
    "HARSH": '{method="random",rate="0.95"}',
    "MILD": f'{{method="{DEFAULT_METHOD}",rate="0.50"}}',
}
ASKED = 10
_SKIPPED = 'vtprune_shadow_skipped_total{reason="%s"}'


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shadows") / "shadows.jsonl"


@pytest.fixture(scope="module")
def shadowed(start_shared: Callable[..., Server], log: Path) -> Server:
    """Every answer has a shadow; two requests run at a time."""
    shadows = ["--prune-shadow", "1", "--prune-shadow-log", str(log), "--max-num-seqs", "2"]
    return start_shared("shadowed", "--plugin", "vtprune", *shadows, model=LLAVA)


def _contents(count: int) -> list[list[dict[str, Any]]]:
    """Questions about the demo's scenes."""
    items = islice(SYNTHETIC.items(None, 5 * count), count)
    return [[image_part(item.load(), "image/png"), text_part(item.prompt)] for item in items]


def _sum(server: Server, name: str) -> float:
    return sum(server.metrics(f"vtprune_shadow_{name}").values())


def _settled(server: Server) -> float:
    """How many requests were compared or skipped."""
    return _sum(server, "compared_total") + _sum(server, "skipped_total")


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _follow(server: Server, content: Any, **body: Any) -> dict[str, Any]:
    """Ask, and wait for the shadow."""
    before = _settled(server)
    answer = server.ask(content, **body)
    _until(lambda: _settled(server) > before)
    return answer


def _lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def _text(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


@pytest.fixture(scope="module")
def compared(shadowed: Server, log: Path) -> dict[str, list[tuple[dict[str, Any], Any, str]]]:
    """Of each setting: the client's answers, their lines of the log, what it gets unpruned."""
    found: dict[str, list[tuple[dict[str, Any], Any, str]]] = {}
    for name, settings in (("HARSH", HARSH), ("MILD", MILD)):
        for content in _contents(ASKED):
            answer = _follow(shadowed, content, vtprune=settings)
            _until(lambda: len(_lines(log)) == int(_sum(shadowed, "compared_total")))
            unpruned = shadowed.text(content, vtprune={"rate": 0})
            found.setdefault(name, []).append((answer, _lines(log)[-1], unpruned))
    return found


def test_a_shadow_says_what_the_client_got_and_would_have_got(compared, log: Path) -> None:
    for asked in compared.values():
        for answer, line, unpruned in asked:
            assert line["pruned"] == _text(answer)
            assert line["unpruned"] == unpruned
            assert line["agreed"] == (line["pruned"] == line["unpruned"])


def test_agreement_is_that_of_the_rate(shadowed: Server, compared) -> None:
    shares, gaps = {}, {}
    for name, label in LABELS.items():
        seen = shadowed.metrics("vtprune_shadow_")
        assert seen[f"vtprune_shadow_compared_total{label}"] == ASKED
        agreed = sum(line["agreed"] for _, line, _ in compared[name])
        assert seen[f"vtprune_shadow_agreed_total{label}"] == agreed
        shares[name] = agreed / ASKED
        gaps[name] = seen[f"vtprune_shadow_logprob_gap_sum{label}"] / ASKED
    assert shares["MILD"] > shares["HARSH"]
    assert gaps["MILD"] < gaps["HARSH"]


def test_every_range_of_a_histogram_is_there(shadowed: Server, compared) -> None:
    """Of answers of as many tokens nothing is above 0, which quantiles have to be told."""
    buckets = shadowed.metrics("vtprune_shadow_length_difference_bucket")
    seen = {name: count for name, count in buckets.items() if 'rate="0.50"' in name}
    assert len(seen) == 8 and seen[next(name for name in seen if "+Inf" in name)] == ASKED


@pytest.mark.parametrize("body", [{}, {"temperature": 1.5, "n": 2, "seed": 3}], ids=str)
def test_a_stream_has_a_shadow_when_it_has_ended(
    body: dict[str, Any], shadowed: Server, log: Path
) -> None:
    """A sampled answer says nothing of pruning: both of a shadow are greedy."""
    (content,), before = _contents(1), _settled(shadowed)
    greedy = shadowed.text(content, vtprune={"rate": 0})
    response = shadowed.post(content, stream=True, vtprune=MILD, **body)
    assert response.text.endswith("data: [DONE]\n\n")
    _until(lambda: _settled(shadowed) > before)
    assert _lines(log)[-1]["unpruned"] == greedy
    assert _lines(log)[-1]["tokens"]["unpruned"] < 12


def test_shadows_are_no_traffic(shadowed: Server) -> None:
    def counted() -> dict[str, float]:
        names = ("requests", "images", "visual_tokens")
        found = [shadowed.metrics(f"vtprune_{name}") for name in names]
        return {name: count for each in found for name, count in each.items()}

    (content,), before, asked = _contents(1), counted(), shadowed.metric("vllm:request_success")
    _follow(shadowed, content, vtprune=MILD)
    change = {name: count - before.get(name, 0) for name, count in counted().items()}
    assert {name: count for name, count in change.items() if count} == {
        f'vtprune_requests_total{{method="{DEFAULT_METHOD}"}}': 1,
        f'vtprune_images_total{{method="{DEFAULT_METHOD}"}}': 1,
        f'vtprune_visual_tokens_original_total{{method="{DEFAULT_METHOD}"}}': 256,
        f'vtprune_visual_tokens_kept_total{{method="{DEFAULT_METHOD}"}}': 128,
    }
    assert shadowed.metric("vllm:request_success") - asked == 3, "vLLM counts what it answers"


def test_what_is_not_pruned_or_not_heard_out_has_none(shadowed: Server) -> None:
    (content,), before = _contents(1), _settled(shadowed)
    shadowed.ask(content, vtprune={"rate": 0})
    shadowed.ask("no picture")
    long = {"max_tokens": 400, "ignore_eos": True, "stream": True}
    body = {"model": "demo", "messages": [{"role": "user", "content": content}], **long}
    with shadowed.client.stream("POST", "/v1/chat/completions", json=body) as response:
        next(response.iter_lines())
    _until(lambda: not shadowed.metric("vllm:num_requests_running"))
    time.sleep(1)
    assert _settled(shadowed) == before


def test_a_prompt_too_long_unpruned_is_no_fault(shadowed: Server) -> None:
    """16 images of 256 tokens, and 4,096 positions."""
    before = shadowed.metrics("vtprune_shadow_skipped_total").get(_SKIPPED % "refused", 0)
    (content,) = _contents(1)
    _follow(shadowed, [*content[:1] * 16, *content[1:]], vtprune=MILD)
    after = shadowed.metrics("vtprune_shadow_skipped_total")
    assert after[_SKIPPED % "refused"] == before + 1
    assert "a shadow failed" not in shadowed.log


def test_nothing_is_shadowed_while_requests_wait(shadowed: Server) -> None:
    """Eight at once where two run: what the first ones asked for is not asked again."""
    before, asked = _settled(shadowed), shadowed.metrics("vtprune_shadow_skipped_total")
    shadowed.texts_at_once(_contents(8), max_tokens=24, ignore_eos=True)
    _until(lambda: _settled(shadowed) == before + 8)
    skipped = shadowed.metrics("vtprune_shadow_skipped_total")
    assert skipped[_SKIPPED % "busy"] - asked.get(_SKIPPED % "busy", 0) >= 2


def test_nothing_is_shadowed_while_images_wait_to_be_prepared(shadowed: Server) -> None:
    """Eight large pictures at once: the API server is behind, the engine never."""
    before, asked = _settled(shadowed), shadowed.metrics("vtprune_shadow_skipped_total")
    shadowed.texts_at_once([_large(shade) for shade in range(8)], max_tokens=1)
    _until(lambda: _settled(shadowed) == before + 8)
    skipped = shadowed.metrics("vtprune_shadow_skipped_total")
    assert skipped[_SKIPPED % "busy"] > asked.get(_SKIPPED % "busy", 0)


def _large(shade: int) -> list[dict[str, Any]]:
    file = io.BytesIO()
    Image.new("RGB", (5000, 5000), (shade, 90, 90)).save(file, "PNG", compress_level=1)
    return [image_part(file.getvalue(), "image/png"), text_part("what color are the tiles?")]
