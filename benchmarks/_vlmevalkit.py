"""Ask a server through VLMEvalKit, every setting as a model of its configuration."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _harness_scenes import write_table
from vtprune_evaluate.client import Server
from vtprune_evaluate.contender import Contender
from vtprune_evaluate.item import Item

__all__ = ["accuracies"]

SCRIPT = Path(__file__).parents[1] / "examples" / "vlmevalkit" / "scenes.py"
DATA = "GQA_Scenes"
FAILED = "Failed to obtain answer via API."


def accuracies(
    server: Server, wanted: Sequence[Contender], items: Sequence[Item], folder: Path
) -> list[float]:
    """Return each contender's accuracy in per cent; see `harnesses.HARNESSES`."""
    write_table(items, folder)
    names = [each.label.replace("/", "of") for each in wanted]
    models = {name: _model(server, each) for name, each in zip(names, wanted, strict=True)}
    data = {DATA: {"class": "Scenes", "dataset": DATA}}
    configuration = folder / "models.json"
    configuration.write_text(json.dumps({"model": models, "data": data}, indent=2))
    command = [sys.executable, str(SCRIPT), "--config", str(configuration)]
    command += ["--work-dir", str(folder / "out"), "--api-nproc", str(server.concurrency)]
    formats = {"PRED_FORMAT": "tsv", "EVAL_FORMAT": "csv"}
    environment = {**os.environ, "LMUData": str(folder), **formats}
    subprocess.run(command, cwd=folder, env=environment, stdout=sys.stderr, check=True)
    return [_accuracy(folder / "out" / name) for name in names]


def _model(server: Server, contender: Contender) -> dict[str, Any]:
    """A client that puts what it does not know into the body. `GPT4V` does, too, but asks for
    `detail` `low`, at which an image keeps a twentieth whatever the rate."""
    return {
        "class": "LMDeployAPI",
        "model": server.model,
        "api_base": f"{server.url}/v1/chat/completions",
        "key": server.key or "none",
        "max_tokens": 8,
        "retry": 2,
        **contender.body(),
    }


def _accuracy(folder: Path) -> float:
    predictions = folder / f"{folder.name}_{DATA}.tsv"
    if FAILED in predictions.read_text():
        raise RuntimeError(f"{folder.name}: requests failed, says {predictions}")
    with (folder / f"{folder.name}_{DATA}_acc.csv").open() as file:
        (row,) = csv.DictReader(file)
    return float(row["Overall"])
