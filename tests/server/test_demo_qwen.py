"""The demo Qwen2.5-VL that answers about pictures of many shapes: `make demo-qwen`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from vllm_server import Server
from vtprune_evaluate.__main__ import main
from vtprune_evaluate.run import read_records

pytestmark = pytest.mark.server

MODEL = Path(__file__).parents[2] / "demo" / "qwen"
ITEMS = 60


@pytest.fixture(scope="module")
def server(start_shared: Callable[..., Server]) -> Server:
    # As `make demo-qwen` starts it: an eager server skips the memory profile.
    return start_shared("demo-qwen", "--plugin", "vtprune", model=str(MODEL), compiled=True)


@pytest.fixture(scope="module")
def results(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty held-out questions: unpruned, and at two shares of the tokens."""
    file = tmp_path_factory.mktemp("qwen") / "results.jsonl"
    asked = ["--url", server.url, "--items", str(ITEMS), "--dataset", "synthetic-ragged"]
    methods = ["--methods", "cdpruner", "random", "--keep", "1/2", "1/9"]
    assert main(["run", *asked, "--out", str(file), *methods]) == 0
    return file


def accuracy(file: Path, method: str, keep: str) -> float:
    records = [r for r in read_records(file) if (r["method"], r["keep"]) == (method, keep)]
    assert len(records) == ITEMS
    return sum(record["score"] for record in records) / ITEMS


def test_it_answers_and_half_of_the_tokens_are_enough(results: Path) -> None:
    """Chance is one in eight for a colour or a shape; its card has the figures of many."""
    unpruned = accuracy(results, "unpruned", "1")
    assert unpruned >= 0.55
    assert accuracy(results, "cdpruner", "1/2") >= unpruned - 0.1


def test_it_needs_the_right_tokens(results: Path) -> None:
    assert accuracy(results, "cdpruner", "1/9") > accuracy(results, "random", "1/9")


def test_pictures_have_the_tokens_of_their_shapes(results: Path) -> None:
    """Ten grids of 112 to 168 tokens, of which half are kept by default as well."""
    counts = {
        (record["original"], record["kept"])
        for record in read_records(results)
        if record["keep"] == "1/2"
    }
    assert len({original for original, _ in counts}) >= 5
    assert all(kept == round(original / 2) for original, kept in counts)
