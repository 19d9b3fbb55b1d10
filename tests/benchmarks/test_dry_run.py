"""Dry runs of benchmarks: every operator and every line but a GPU's own; every contender."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from forked_servers import __file__ as FORKED
from nightly import NIGHTLY
from vllm_process import environment
from vllm_server import core
from vtprune_kernels.spec import all_specs

ROOT = Path(__file__).parents[2]


@NIGHTLY
@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it is no dry run")
def test_kernels_benchmark_runs_through_every_operator() -> None:
    results = ROOT / "benchmarks" / "results" / "kernels-gpu.csv"
    before = results.read_bytes() if results.exists() else None
    run = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "kernels.py"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert "dry run" in run.stdout
    for spec in all_specs():
        assert f"{spec.name} " in run.stdout
    assert run.stdout.count("agrees with the reference") >= len(all_specs())
    assert (results.read_bytes() if results.exists() else None) == before


@pytest.mark.slow
def test_instructions_of_loops_are_counted_for_a_gpu_that_is_not_there() -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "sass.py", "dedup"],
        env=environment(PYTHONPATH=os.pathsep.join([str(ROOT / "environment"), *sys.path])),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    kernels = re.findall(r"^(_\w+_kernel), \d+ warps", run.stdout, re.MULTILINE)
    assert kernels == ["_nearest_kernel", "_dedup_kernel"]
    rounds = run.stdout.partition("_dedup_kernel")[2]
    assert re.search(r"^ +\d+-\d+: \d+ instructions; \d+ BAR, \d+ LDG", rounds, re.MULTILINE)


@pytest.mark.slow
def test_launches_are_counted_beside_stock() -> None:
    results = ROOT / "benchmarks" / "results" / "launches.jsonl"
    before = results.read_bytes()
    script = ROOT / "benchmarks" / "launches.py"
    paths = [str(ROOT / "environment"), os.environ.get("PYTHONPATH", "")]
    run = subprocess.run(
        [sys.executable, script, "--models", "demo-next", "--images", "1", "2", "--dry-run"],
        env=environment(PYTHONPATH=os.pathsep.join(paths)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stdout.splitlines() if line.startswith("| demo-next |")]
    rows = [line.split("|")[2:-1] for line in lines]
    batches = ("1", "2 of one size", "2 of all sizes")
    named = [(pictures.strip(), contender.strip()) for pictures, contender, *_ in rows]
    assert named == [(it, who) for it in batches for who in ("new", "known", "stock")]
    towers = [int(tower) for *_, tower in rows]
    assert towers[1::3] == [0, 0, 0], "a known picture went through the tower"
    assert all(towers[::3]), "a new one did not"
    assert all(towers[2::3]), "stock's did not"
    assert all(int(launches) > 0 for _, _, launches, *_ in rows)
    assert results.read_bytes() == before, "a dry run is recorded"


def _forked(script: str, *arguments: str) -> str:
    """What a benchmark prints in a dry run with servers that find vLLM imported."""
    folders = ("environment", "benchmarks", "tests/server")
    paths = [*(str(ROOT / folder) for folder in folders), os.environ.get("PYTHONPATH", "")]
    run = subprocess.run(
        [sys.executable, FORKED, ROOT / "benchmarks" / script, *arguments, "--dry-run"],
        **forked.lent(environment(**core(), PYTHONPATH=os.pathsep.join(paths))),
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def _rows(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


@pytest.mark.server
@pytest.mark.slow
@NIGHTLY
def test_serving_benchmark_asks_every_contender_of_a_qwen() -> None:
    """Of a photograph of 112 x 112: 16 tokens, or as many as each budget keeps of them."""
    results = ROOT / "benchmarks" / "results" / "serve-cpu.jsonl"
    before = results.read_bytes()
    printed = _forked("serve.py", "--model", "demo-qwen2.5", "--keep", "1/2", "1/4")
    rows = _rows(printed)
    prompts = {row["contender"]: row["prompt_tokens"] for row in rows}
    assert list(prompts) == ["stock", "vtprune 1/2", "vtprune 1/4", "text-only"]
    assert prompts["stock"] - prompts["vtprune 1/2"] == 8, "of 16 visual tokens, 8 are kept"
    assert prompts["stock"] - prompts["vtprune 1/4"] == 12, "of 16 visual tokens, 4 are kept"
    assert abs(prompts["text-only"] - prompts["vtprune 1/4"]) <= 1, "the limit is as long"
    for row in rows:
        assert f"| {row['contender']} | {row['prompt_tokens']} |" in printed
    assert "Per image in the pruned server vtprune 1/4: {" in printed
    assert results.read_bytes() == before, "a dry run is recorded"


@NIGHTLY
@pytest.mark.server
@pytest.mark.slow
def test_host_benchmark_asks_both_servers_the_same() -> None:
    results = ROOT / "benchmarks" / "results" / "host-cpu.jsonl"
    before = results.read_bytes()
    printed = _forked("host.py")
    blocks = _rows(printed)
    assert len(blocks) == 6, "a pair that warms up and one that counts, of each traffic"
    for block in blocks:
        assert block["stock"] > 0
        assert block["vtprune"] > 0, "its API process used no processor"
    for traffic in ("fresh", "known"):
        assert f"\n| {traffic} | " in printed
    assert results.read_bytes() == before, "a dry run is recorded"


@pytest.mark.server
@pytest.mark.slow
def test_the_run_on_a_gpu_walks_through_every_stage(tmp_path: Path) -> None:
    """From a copy without git, as on a machine that is lent."""
    paths = [str(ROOT / folder) for folder in ("environment", "benchmarks", "tests/server")]
    paths += [os.environ.get("PYTHONPATH", "")]
    script = [sys.executable, FORKED, ROOT / "benchmarks" / "gpu.py", "--dry-run"]
    run = subprocess.run(
        [*script, "--out", tmp_path],
        **forked.lent(environment(**core(), PYTHONPATH=os.pathsep.join(paths), COMMIT="a-copy")),
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    ended = {row["stage"]: row["ended"] for row in rows if "ended" in row}
    stages = ("environment", "operators", "llava", "next", "kernels", "apis", "qwen", "demo")
    assert ended == dict.fromkeys((*stages, "llava off", "servers"), "as it should")
    assert next(row["commit"] for row in rows if row["stage"] == "environment") == "a-copy"
    checks = [row["op"] for row in rows if row["stage"] == "operators" and row.get("agrees")]
    assert checks == [spec.id for spec in all_specs()]
    for stage in ("llava", "next", "apis", "qwen"):
        served = [row for row in rows if row["stage"] == stage and "requests_per_s" in row]
        stock, pruned, limit = served
        assert pruned["prompt_tokens"] < stock["prompt_tokens"]
        assert abs(limit["prompt_tokens"] - pruned["prompt_tokens"]) <= 1, "the limit is as long"
        assert all(row["kv_tokens"] and row["host_ms_a_request"] for row in served)
    stock, off = [row for row in rows if row["stage"] == "llava off" and "requests_per_s" in row]
    assert off["contender"] != stock["contender"]
    assert off["prompt_tokens"] == stock["prompt_tokens"], "nothing is pruned at rate 0"
    answers = [(row["answers"], row["equal"]) for row in rows if "equal" in row]
    assert answers == [(2, 2), (2, 2)], (
        "unpruned and pruned, each as it was on this kind of machine"
    )
    assert [row["compiled_in_requests"] for row in rows if row["stage"] == "logs"] == [[]] * 9
    assert "not a measurement" in run.stdout
    assert "| apis: vtprune | 1 |" in (tmp_path / "README.md").read_text()
