"""Measure everything that needs a GPU, in nine minutes and with one command.

    make gpu                              or, from a plain copy without git, network or make:
    COMMIT=abc1234 PYTHONPATH=environment:$PYTHONPATH python benchmarks/gpu.py
    python benchmarks/gpu.py --dry-run    every stage on a CPU with tiny models; records nothing

Stages, each with its own time limit; each row is written at once:

    environment   GPU, driver, versions, commit
    operators     every operator against its reference on the CPU, while servers start
    demo          the trained demo's answers beside a CPU's (`results/demo-answers-cpu.jsonl`), as
                  soon as its server is up
    llava         LLaVA-1.5-7B (64 of 576 tokens), stock and vtprune in turn
    llava off     the same once more, with vtprune asked at rate 0
    qwen          Qwen2.5-VL-7B, its tower launched eagerly and in CUDA graphs
    kernels       `kernels.py`, while the next servers start
    next, apis    LLaVA-NeXT-7B, and LLaVA-1.5-7B with four API servers

Weights of the 7B shapes are random, since times do not depend on them. Each figure of a server
comes with the tokens of its KV cache and the host's milliseconds per request by process.
`text-only` is the limit that pruning can reach: stock vLLM with prompts without image, as long as
the pruned ones. The rows `logs` list kernels that were compiled during requests. If a stage fails,
hangs or has no time left, it is recorded, the next one follows, and the exit code is 1.

Rows go to rows.jsonl in benchmarks/results/gpu-DATE, in $OUT, or in --out, with the servers' logs
and kernels.csv; README.md there is the table.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import _chat
import torch
from _gpu_fleet import Fleet, Wanted, waves
from _gpu_record import Record
from _gpu_servers import server_groups
from _gpu_stages import METHODS, Load, compare_answers, serve_pair
from _gpu_table import table
from _machine import describe
from _record import describe_gpu
from vllm_process import MODELS

HERE = Path(__file__).resolve().parent
KERNELS = ("selection", "greedy_select", "dedup", "cosine_gram", "cls_importance", "text_relevance")
RESERVE_S = 15.0
"""Seconds reserved for stopping servers and writing the table."""


def main() -> None:
    """Run all stages, write the table."""
    arguments = _arguments()
    on_gpu = torch.cuda.is_available() and not arguments.dry_run
    # With a GPU, spinning workers of one server do not slow another one down.
    _chat.SPINNING_S = 0.2 if on_gpu else 0.0
    if not on_gpu and not arguments.dry_run:
        raise SystemExit("no GPU: --dry-run runs all stages on the CPU")
    with tempfile.TemporaryDirectory() as scratch:
        out = arguments.out or (Path(scratch) if arguments.dry_run else _results())
        record = Record(out, 60 * arguments.minutes - RESERVE_S)
        _run(arguments, record, on_gpu)
        page = table(record.outcomes, record.rows)
        (out / "README.md").write_text(page)
        print(page)
    if arguments.dry_run:
        print("A dry run on the CPU: not a measurement, nothing recorded.")
    sys.exit(any(each["ended"] != "as it should" for each in record.outcomes))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="tiny models on a CPU")
    parser.add_argument("--minutes", type=float, default=9.0, help="for the whole run")
    parser.add_argument("--out", type=Path, help="folder for the rows")
    parser.add_argument("--memory", type=float, help="GB for servers; by default 93 %% of the GPU")
    parser.add_argument(
        "--write-answers",
        action="store_true",
        help="store the demo's answers as the CPU's; in a dry run",
    )
    return parser.parse_args()


def _results() -> Path:
    if "OUT" in os.environ:
        return Path(os.environ["OUT"])
    return HERE / "results" / f"gpu-{datetime.date.today().isoformat()}"


def _run(arguments: argparse.Namespace, record: Record, on_gpu: bool) -> None:
    record.stage("environment", 20, lambda until: _environment(record, on_gpu))
    if on_gpu:
        record.stage("models", 40, _models)
    groups = server_groups(on_gpu)
    memory = arguments.memory or (_memory_gb() * 0.93 if on_gpu else 0.0)
    beside = [
        ("operators", 100.0, [str(HERE / "operators.py"), "--most", "1000" if on_gpu else "63"]),
        ("kernels", 100.0, [str(HERE / "kernels.py"), *_kernel_flags(record, on_gpu)]),
    ]
    packed = list(waves(list(groups.values()), memory)) if on_gpu else [[0, 1, 2], [3, 4]]
    for wave in packed:
        names = [list(groups)[number] for number in wave]
        fleet = Fleet(record, [one for name in names for one in groups[name]], on_gpu)
        fleet.begin()
        if beside:
            _script(record, *beside.pop(0))
        if "demo" in names:  # right or wrong does not depend on what starts beside it
            record.stage("demo", 150, partial(_answers, arguments, fleet, record, on_gpu))
        record.stage("servers", 240, fleet.wait)
        for name in names:
            if name != "demo":
                _ask(name, groups[name], fleet, record, on_gpu)
        fleet.stop()
    for script in beside:
        _script(record, *script)


def _answers(
    arguments: argparse.Namespace, fleet: Fleet, record: Record, on_gpu: bool, until: float
) -> None:
    """Compare the demo's answers as soon as its server is up."""
    items, methods = (64, METHODS) if on_gpu or arguments.write_answers else (2, METHODS[:1])
    fleet.wait_for("demo", until)
    compare_answers(fleet, record, items, methods, write=arguments.write_answers)


def _ask(name: str, group: Sequence[Wanted], fleet: Fleet, record: Record, on_gpu: bool) -> None:
    """Run the stage of a group of servers."""
    levels = {"llava": (1, 8, 32, 64), "next": (1, 8, 12), "apis": (8, 32, 64), "qwen": (1, 16, 48)}
    load = Load(levels[name], requests=2, rounds=2, timed=32)
    if not on_gpu:
        load = Load((1,), requests=1, rounds=1, timed=1, output_tokens=2, size=(112, 112))
    names = [each.name for each in group]
    record.stage(name, 90, lambda until: serve_pair(name, fleet, names, load, record, until))
    if name == "llava":
        off = replace(load, clients=load.clients[:2], unpruned=True)
        stage = f"{name} off"
        record.stage(stage, 30, lambda until: serve_pair(stage, fleet, names, off, record, until))


def _environment(record: Record, on_gpu: bool) -> None:
    machine = (
        describe_gpu() | {"vllm": importlib.metadata.version("vllm")} if on_gpu else describe()
    )
    cores = len(os.sched_getaffinity(0))
    record.row("environment", **{**machine, "cores": cores, "python": sys.version.split()[0]})


def _models(until: float) -> None:
    """Write the configurations and tokenizers of the 7B shapes, without weights, in seconds."""
    build = HERE.parent / "demo" / "build_demo.py"
    names = ("llava-7b", "llava-next-7b", "qwen2.5-vl-7b")
    command = [sys.executable, str(build), "--out", str(MODELS), *names]
    subprocess.run(command, check=True, timeout=until - time.monotonic())


def _memory_gb() -> float:
    """Return the memory of the first GPU, from nvidia-smi, since torch would use some of it."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(text.splitlines()[0]) * 2**20 / 1e9


def _kernel_flags(record: Record, on_gpu: bool) -> list[str]:
    if not on_gpu:
        return ["--only", "top_k_sorted", "dedup"]
    return ["--rounds", "5", "--out", str(record.folder / "kernels.csv"), "--only", *KERNELS]


def _script(record: Record, name: str, limit: float, command: Sequence[str]) -> None:
    """Run a script as a stage in its own process, so that a GPU error ends only that."""

    def work(until: float) -> None:
        seconds = until - time.monotonic()
        with (record.folder / f"{name}.txt").open("w") as log:
            done = subprocess.run(
                [sys.executable, *command],
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            )
        if done.returncode:
            raise RuntimeError((record.folder / f"{name}.txt").read_text()[-1500:])

    record.stage(name, limit, work)
    lines = (record.folder / f"{name}.txt").read_text().splitlines()
    for line in lines:
        if line.startswith("{"):
            record.row(name, **json.loads(line))
        elif "agrees" in line or line.startswith(("met:", "MISSED:")):
            record.row(name, found=line)


if __name__ == "__main__":
    main()
