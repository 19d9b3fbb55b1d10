"""The demo model that answers, and the harness that says so, over real HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vllm_server import Server
from vtprune_evaluate.__main__ import main
from vtprune_evaluate.run import read_records

pytestmark = pytest.mark.server

ITEMS, SHARE = 60, "1/9"


@pytest.fixture(scope="module")
def results(answering: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty held-out questions, unpruned and with 28 of 256 tokens."""
    file = tmp_path_factory.mktemp("evaluation") / "results.jsonl"
    arguments = ["--url", answering.url, "--items", str(ITEMS), "--out", str(file)]
    assert main(["run", *arguments, "--methods", "adafv", "random", "--keep", SHARE]) == 0
    return file


def accuracy(file: Path, method: str, group: str = "") -> float:
    scores = [
        record["score"]
        for record in read_records(file)
        if record["method"] == method and group in ("", record["group"])
    ]
    return sum(scores) / len(scores)


def test_the_demo_model_answers(results: Path) -> None:
    """Chance is 1 in 8 for a colour or a shape; its card has the figures of 1,000 questions."""
    assert accuracy(results, "unpruned", "salient") >= 0.6


def test_the_model_needs_the_right_tokens(results: Path) -> None:
    """Without this no curve over methods would mean anything."""
    assert accuracy(results, "adafv") > accuracy(results, "random")


def test_counts_come_from_the_server(results: Path) -> None:
    records = read_records(results)
    assert len(records) == 3 * ITEMS
    kept = {(record["method"], record["original"], record["kept"]) for record in records}
    pruned = {(method, 256, 28) for method in ("adafv", "random")}
    assert kept - {("unpruned", None, None), ("unpruned", 256, 256)} == pruned


def test_a_second_run_asks_nothing_and_says_the_same(answering: Server, results: Path) -> None:
    table, lines = results.with_suffix(".md").read_text(), results.read_text()
    asked = answering.metric("vllm:request_success_total")
    arguments = ["--url", answering.url, "--items", str(ITEMS), "--out", str(results)]
    assert main(["run", *arguments, "--methods", "adafv", "random", "--keep", SHARE]) == 0
    assert answering.metric("vllm:request_success_total") == asked
    assert results.with_suffix(".md").read_text() == table
    assert results.read_text() == lines
    assert results.with_suffix(".png").stat().st_size > 1000


def test_a_run_that_was_cut_off_goes_on(answering: Server, results: Path, tmp_path: Path) -> None:
    lines = results.read_text().splitlines(keepends=True)
    file = tmp_path / "cut.jsonl"
    file.write_text("".join(lines[: 2 * ITEMS + 50]) + lines[-1][:30])
    asked = answering.metric("vllm:request_success_total")
    arguments = ["--url", answering.url, "--items", str(ITEMS), "--out", str(file)]
    assert main(["run", *arguments, "--methods", "adafv", "random", "--keep", SHARE]) == 0
    assert answering.metric("vllm:request_success_total") == asked + 10
    again = {json.dumps(record, sort_keys=True) for record in read_records(file)}
    assert again == {json.dumps(record, sort_keys=True) for record in read_records(results)}


def test_a_refused_method_is_one_sentence(answering: Server, tmp_path: Path, capsys) -> None:
    arguments = ["--url", answering.url, "--items", "1", "--out", str(tmp_path / "out.jsonl")]
    assert main(["run", *arguments, "--methods", "nonsense", "--keep", SHARE]) == 1
    assert "nonsense" in capsys.readouterr().err


def test_the_tuner_ends_with_a_rate_to_serve(answering: Server, results: Path, capsys) -> None:
    arguments = ["--url", answering.url, "--items", str(ITEMS), "--out", str(results)]
    assert main(["tune", *arguments, "--method", "adafv", "--bound", "100"]) == 0
    assert "--prune-method adafv --prune-rate 0.9722" in capsys.readouterr().out
