"""Ray Data LLM with vtprune in its engine, by `examples/ray_data.py`: pictures and questions to
answers with counts, and what is answered once is not asked again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray_here import NEEDS_RAY, ROOT, running

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(1800), NEEDS_RAY]

BAD: list[tuple[str, str, Any]] = [
    ("none.png", "what color are the tiles?", None),
    ("scene.png", "what color are the tiles?", {"rate": 2}),
]


def write_questions(file: Path) -> None:
    """The example's own four, and two that cannot be answered."""
    import pyarrow as pa
    from pyarrow import parquet

    script = [sys.executable, str(ROOT / "examples" / "ray_data.py"), "--demo", str(file)]
    path = os.pathsep.join(filter(None, sys.path))
    subprocess.run(script, check=True, timeout=120, env={**os.environ, "PYTHONPATH": path})
    asked = parquet.read_table(file)
    more = [
        {"id": number, "picture": picture, "question": question, "vtprune": own and json.dumps(own)}
        for number, (picture, question, own) in enumerate(BAD, start=len(asked))
    ]
    parquet.write_table(pa.concat_tables([asked, pa.Table.from_pylist(more, asked.schema)]), file)


def rows(answers: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    written: list[dict[str, Any]] = parquet.read_table(answers).to_pylist()
    return sorted(written, key=lambda row: row["id"])


def test_a_folder_of_pictures_is_asked_and_taken_up_again(tmp_path: Path) -> None:
    questions, answers, log = tmp_path / "q.parquet", tmp_path / "answers", tmp_path / "log"
    write_questions(questions)
    call = (str(ROOT / "demo" / "llava"), str(ROOT / "assets"), str(questions), str(answers))
    with running(log, "ray_data.py", *call) as process:
        assert process.wait(800) == 0, log.read_text()[-6000:]
    first = rows(answers)
    assert [row["id"] for row in first] == list(range(6))
    good, bad = first[:4], first[4:]
    assert [(row["original"], row["kept"]) for row in good] == [
        (256, 64),
        (256, 32),
        (256, 256),
        (256, 128),
    ]
    assert [row["error"] for row in good] == [""] * 4
    assert good[2]["answer"] == "orange"
    assert [row["answer"] for row in bad] == ["", ""]
    assert "none.png" in bad[0]["error"] and "rate is 2" in bad[1]["error"]
    # One answer is lost, with the note that it was written; the others are not asked again.
    _lose(answers, 1)
    _lose(Path(f"{answers}.written"), 1)
    before = {file: file.stat().st_mtime_ns for file in answers.iterdir()}
    with running(log, "ray_data.py", *call) as process:
        assert process.wait(800) == 0, log.read_text()[-6000:]
    assert rows(answers) == first
    new = [file for file in answers.iterdir() if file not in before]
    assert sum(len(rows(file)) for file in new) == 1


def _lose(folder: Path, number: int) -> None:
    """Take a row out of the files of a folder, as if an end had come before it was written."""
    from pyarrow import compute, parquet

    for file in folder.rglob("*.parquet"):
        table = parquet.read_table(file)
        parquet.write_table(table.filter(compute.field("id") != number), file)
