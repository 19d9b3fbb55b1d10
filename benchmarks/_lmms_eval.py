"""Ask a server through lmms-eval's command line, once for each setting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from _harness_scenes import write_lines
from vtprune_evaluate.client import Server
from vtprune_evaluate.contender import Contender
from vtprune_evaluate.item import Item

__all__ = ["accuracies"]

TASKS = Path(__file__).parents[1] / "examples" / "lmms_eval"
FAILED = "LMMS_EVAL_REQUEST_FAILED"


def accuracies(
    server: Server, wanted: Sequence[Contender], items: Sequence[Item], folder: Path
) -> list[float]:
    """Return each contender's accuracy in per cent; see `harnesses.HARNESSES`."""
    write_lines(items, folder)
    return [_accuracy(server, each, folder) for each in wanted]


def _accuracy(server: Server, contender: Contender, folder: Path) -> float:
    settings = contender.body()["vtprune"]
    arguments = {"model": server.model, "base_url": f"{server.url}/v1"}
    arguments |= {f"prune_{key}": value for key, value in settings.items()}
    out = folder / contender.label.replace("/", "of")
    command = [sys.executable, "-m", "lmms_eval", "--model", "vtprune", "--log_samples"]
    command += ["--model_args", ",".join(f"{key}={value}" for key, value in arguments.items())]
    command += ["--tasks", "vtprune_scenes", "--include_path", str(TASKS), "--output_path", out]
    environment = {"OPENAI_API_KEY": "none", "HF_HUB_OFFLINE": "1", **os.environ}
    subprocess.run(command, cwd=folder, env=environment, stdout=sys.stderr, check=True)
    (samples,) = out.glob("*/*_samples_*.jsonl")
    if FAILED in samples.read_text():
        raise RuntimeError(f"{contender.label}: requests failed, says {samples}")
    (results,) = out.glob("*/*_results.json")
    found = json.loads(results.read_text())["results"]["vtprune_scenes"]
    return 100 * float(found["accuracy,none"])
