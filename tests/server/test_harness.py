"""lmms-eval and VLMEvalKit themselves ask the demo, and the tuner takes a task of lmms-eval.

Both are skipped where they are not installed: `make test-harness`.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from nightly import NIGHTLY
from vllm_server import Server
from vtprune_evaluate.__main__ import main
from vtprune_evaluate.datasets import DATASETS
from vtprune_evaluate.item import DatasetError
from vtprune_evaluate.run import read_records

from vllm_pruner.settings.defaults import DEFAULT_METHOD

ROOT = Path(__file__).parents[2]
TASK = ROOT / "examples" / "lmms_eval" / "scenes.yaml"
LMMS_EVAL = DATASETS["lmms-eval"]

pytestmark = [pytest.mark.server, pytest.mark.slow, NIGHTLY, pytest.mark.timeout(1200)]


def _needs(module: str) -> pytest.MarkDecorator:
    reason = f"{module} is not installed; `make test-harness`"
    return pytest.mark.skipif(find_spec(module) is None, reason=reason)


@pytest.mark.parametrize(
    "harness",
    [
        pytest.param("lmms-eval", marks=_needs("lmms_eval")),
        pytest.param("vlmevalkit", marks=_needs("vlmeval")),
    ],
)
def test_a_small_task_is_asked_unpruned_pruned_and_shrunk(answering: Server, harness: str) -> None:
    script = str(ROOT / "benchmarks" / "harnesses.py")
    flags = ["--url", answering.url, "--items", "25", "--keep", "1/9"]
    run = subprocess.run(
        [sys.executable, script, harness, *flags], capture_output=True, text=True, timeout=900
    )
    assert run.returncode == 0, run.stderr[-6000:]
    lines = run.stdout.splitlines()[2:]
    rows = {line.split("|")[1].strip(): line.split("|")[3:5] for line in lines}
    assert {name: int(tokens) for name, (tokens, _) in rows.items()} == {
        "unpruned": 256,
        DEFAULT_METHOD: 28,
        "resize": 25,
    }
    accuracy = {name: float(text) for name, (_, text) in rows.items()}
    assert accuracy["unpruned"] >= 60
    assert accuracy[DEFAULT_METHOD] > accuracy["resize"]


@pytest.fixture
def questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the task's files, as the task looks for them where it is run."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from _harness_scenes import write_lines

    write_lines(list(DATASETS["synthetic"].items(None, 20)), tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@_needs("lmms_eval")
def test_the_tuner_takes_a_task(answering: Server, questions: Path, capsys) -> None:
    flags = ["--url", answering.url, "--dataset", "lmms-eval", "--data", str(TASK)]
    assert main(["tune", *flags, "--method", "cdpruner", "--bound", "100"]) == 0
    assert "--prune-method cdpruner --prune-rate 0.9722" in capsys.readouterr().out
    records = read_records(questions / "evaluation.jsonl")
    assert {record["method"] for record in records} == {"unpruned", "cdpruner", "resize", "random"}
    unpruned = [record for record in records if record["method"] == "unpruned"]
    unpruned.sort(key=lambda record: int(record["id"].rpartition("-")[2]))
    right = {item.id: item.reference for item in DATASETS["synthetic"].items(None, 20)}
    assert len(unpruned) == len(right)
    assert [record["score"] for record in unpruned] == [
        float(record["answer"].split() == answer.split())
        for record, answer in zip(unpruned, right.values(), strict=True)
    ], "the task's own scoring"
    pictures = {key.partition("-")[0] for key in right}
    assert len({record["image"] for record in unpruned}) == len(pictures)


@_needs("lmms_eval")
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no-such-task", "no-such-task is no task of lmms-eval; allowed: a name of"),
        ("nothing.yaml", "the data set needs nothing.yaml, which does not exist"),
    ],
)
def test_what_is_no_task_is_one_sentence(questions: Path, name: str, sentence: str) -> None:
    with pytest.raises(DatasetError, match=sentence):
        list(LMMS_EVAL.items(Path(name), 1))


@_needs("lmms_eval")
def test_a_metric_that_the_task_does_not_have_is_named(questions: Path) -> None:
    (item,) = LMMS_EVAL.items(Path(f"{TASK}:anls"), 1)
    assert item.max_tokens == 8
    with pytest.raises(DatasetError, match="anls is no metric of .*; allowed: accuracy"):
        LMMS_EVAL.score("a", item.reference)
