"""The demo Qwen2.5-VL that reads pages, whose tokens may be chosen before its tower runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from vllm_server import Server
from vtprune_evaluate.__main__ import main
from vtprune_evaluate.run import read_records

pytestmark = pytest.mark.server

MODEL = Path(__file__).parents[2] / "demo" / "qwen-reader"
ITEMS, TOKENS = 24, 256


@pytest.fixture(scope="module")
def server(start_shared: Callable[..., Server]) -> Server:
    return start_shared("demo-qwen-reader", "--plugin", "vtprune", model=str(MODEL))


@pytest.fixture(scope="module")
def results(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions about six pages: unpruned, with what is empty left out, and from any half."""
    file = tmp_path_factory.mktemp("qwen-reader") / "results.jsonl"
    asked = ["--url", server.url, "--items", str(ITEMS), "--dataset", "pages-large"]
    for method, keep in (("pixels", "1/20"), ("random", "1/2")):
        methods = ["--methods", method, "--keep", keep]
        assert main(["run", *asked, "--out", str(file), *methods]) == 0
    return file


def _answered(file: Path, method: str) -> tuple[float, list[int]]:
    """Return the share of right answers, and how many tokens each page kept."""
    records = [record for record in read_records(file) if record["method"] == method]
    assert len(records) == ITEMS
    right = sum(record["score"] for record in records) / ITEMS
    return right, [record["kept"] or TOKENS for record in records]


def test_it_reads_as_well_when_its_tower_sees_nothing_empty(results: Path) -> None:
    """Its training never left out a part of a page."""
    right, kept = _answered(results, "pixels")
    assert right == _answered(results, "unpruned")[0] == 1
    assert all(0.25 * TOKENS < each < 0.75 * TOKENS for each in kept)


def test_it_needs_the_right_tokens(results: Path) -> None:
    assert _answered(results, "random")[0] < 0.8
