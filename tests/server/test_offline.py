"""Offline use: `LLM(mm_processor_kwargs={"vtprune": {...}})` prunes like the server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from forked import run
from media import photo_question
from nightly import NIGHTLY
from vllm_process import MODELS, environment
from vllm_server import Server

pytestmark = pytest.mark.server

SCRIPT = Path(__file__).with_name("offline_answer.py")
ROOT = Path(__file__).parents[2]
DEMO = ROOT / "demo" / "llava"
OWN: list[dict[str, Any]] = [{"method": "random", "tokens": 40}, {"rate": 0}]


def _run(settings: dict[str, object] | None, folder: Path) -> subprocess.CompletedProcess[str]:
    content = folder / "content.json"
    content.write_text(json.dumps(photo_question(0)))
    command = [str(SCRIPT), str(MODELS / "demo"), str(content), json.dumps(settings)]
    return run([*command, json.dumps(OWN)], environment(), folder, timeout=300)


def test_offline_answers_and_counts_are_the_servers(pruned: Server, tmp_path: Path) -> None:
    result = _run({"tokens": 64}, tmp_path)
    assert result.returncode == 0, result.stderr[-4000:]
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("answers ")]
    answers = json.loads(line.removeprefix("answers "))
    for answer, settings in zip(answers, [None, *OWN], strict=True):
        body = {} if settings is None else {"vtprune": settings}
        completion = pruned.ask(photo_question(0), **body)
        usage = completion["usage"]
        text = completion["choices"][0]["message"]["content"]
        assert answer == [usage["prompt_tokens"], text, usage.get("visual_tokens")]
    assert [counts["kept"] for *_, counts in answers] == [64, 40, 576]


def test_bad_settings_raise_the_sentence(tmp_path: Path) -> None:
    result = _run({"rate": 1.5}, tmp_path)
    assert result.returncode != 0
    assert "rate is 1.5; it should be less than 1" in result.stderr.splitlines()[-1]


def test_settings_of_a_call_are_refused_by_an_engine_that_does_not_prune(
    stock: Server, tmp_path: Path
) -> None:
    result = _run(None, tmp_path)
    assert result.returncode == 0, result.stderr[-4000:]
    lines = [line.partition(" ")[::2] for line in result.stdout.splitlines()]
    refused = [said for word, said in lines if word == "refused"]
    assert len(refused) == len(OWN)
    for sentence in refused:
        assert "vtprune: settings are given to an engine that does not prune" in sentence
        assert "with mm_processor_kwargs={'vtprune': {}} in LLM(...)" in sentence
    (answers,) = [json.loads(said) for word, said in lines if word == "answers"]
    completion = stock.ask(photo_question(0))
    text = completion["choices"][0]["message"]["content"]
    assert answers == [[completion["usage"]["prompt_tokens"], text, None]]


@NIGHTLY
def test_a_folder_of_pictures_is_asked_and_taken_up_again(tmp_path: Path) -> None:
    """The first answer was there, and the second was being written, when a run was ended."""
    answers, questions = tmp_path / "answers.jsonl", tmp_path / "questions.jsonl"
    asked = (ROOT / "examples" / "questions.jsonl").read_text().splitlines()
    bad = [
        {"image": "none.png", "question": "what color are the tiles?"},
        {**json.loads(asked[0]), "vtprune": {"rate": 2}},
    ]
    questions.write_text("\n".join([*asked, *map(json.dumps, bad)]))
    answers.write_text('{"kept": "as it was"}\n{"image": "scene.p')
    script = [str(ROOT / "examples" / "offline_batch.py"), str(DEMO), str(ROOT / "assets")]
    result = run([*script, str(questions), str(answers)], environment(), tmp_path, timeout=300)
    assert result.returncode == 0, result.stderr[-4000:]
    first, *rows = map(json.loads, answers.read_text().splitlines())
    assert first == {"kept": "as it was"}
    assert [row["question"] for row in rows] == [
        json.loads(line)["question"] for line in questions.read_text().splitlines()[1:]
    ]
    kept = [row["visual_tokens"]["kept"] for row in rows[:3]]
    assert kept == [32, 256, 128]
    assert rows[1]["answer"].strip() == "orange"
    assert "none.png" in rows[3]["error"] and "rate is 2" in rows[4]["error"]


def _line(name: str, **body: Any) -> str:
    message = {"role": "user", "content": photo_question(0, "what color are the tiles?")}
    body = {"model": str(DEMO), "messages": [message], "max_tokens": 4, "temperature": 0, **body}
    url = "/v1/chat/completions"
    return json.dumps({"custom_id": name, "method": "POST", "url": url, "body": body})


def test_a_batch_file_has_settings_and_counts_a_line(tmp_path: Path) -> None:
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    own: dict[str, Any] = {
        "server's": {},
        "own": {"vtprune": {"method": "adafv", "tokens": 40}},
        "off": {"vtprune": {"rate": 0}},
        "bad": {"vtprune": {"rate": 2}},
    }
    questions.write_text("\n".join(_line(name, **body) for name, body in own.items()))
    files = ["-i", str(questions), "-o", str(answers), "--model", str(DEMO)]
    small = ["--max-model-len", "4096", "--num-gpu-blocks-override", "64", "--enforce-eager"]
    command = ["vllm", "run-batch", *files, "--plugin", "vtprune", *small]
    result = run(command, environment(), tmp_path, timeout=300)
    assert result.returncode == 0, result.stderr[-4000:]
    lines = {line["custom_id"]: line for line in map(json.loads, answers.read_text().splitlines())}
    kept = {name: lines[name]["response"]["body"]["usage"] for name in ("server's", "own", "off")}
    assert {name: usage["visual_tokens"]["kept"] for name, usage in kept.items()} == {
        "server's": 28,
        "own": 40,
        "off": 256,
    }
    assert lines["bad"]["response"]["status_code"] == 400
    assert "rate is 2" in lines["bad"]["error"]["error"]["message"]
    assert lines["bad"]["error"]["error"]["param"] == "vtprune"
