"""The stages that ask servers: stock and pruned ones compared with the limit of what pruning can
gain, and the demo's answers compared with a CPU's."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from _chat import image_body, photographs, text_body
from _gpu_fleet import Fleet, host_seconds
from _gpu_record import Record, evidence
from _serving import Contender, compare, milliseconds_inside, words_for
from vtprune_evaluate.client import Server
from vtprune_evaluate.contender import contenders
from vtprune_evaluate.datasets import DATASETS
from vtprune_evaluate.run import evaluate

__all__ = ["ANSWERS", "Load", "compare_answers", "serve_pair"]

ANSWERS = Path(__file__).parent / "results" / "demo-answers-cpu.jsonl"
"""The trained demo's answers on a CPU: each line has method, kept share, question and answer."""

METHODS = ("vispruner", "adafv", "triad", "cdpruner", "scope", "divprune")


@dataclass(frozen=True)
class Load:
    """How much to ask."""

    clients: Sequence[int]
    requests: int
    """Requests per client, contender and round."""
    rounds: int
    timed: int
    """Images to time inside the server."""
    output_tokens: int = 16
    size: tuple[int, int] = (448, 336)
    unpruned: bool = False
    """Whether the pruning server is asked at rate 0, where it is to be as fast as stock."""


def serve_pair(
    stage: str, fleet: Fleet, names: Sequence[str], load: Load, record: Record, until: float
) -> None:
    """Compare stock (the first name) with pruned servers at each number of clients, and unless they
    are asked at rate 0, measure text-only prompts as long as the shortest pruned one; finally, the
    time per image inside.

    Raises:
        RuntimeError: a server is not up, or a number of clients failed; the others were measured.
    """
    missing = [name for name in names if name not in fleet.servers]
    present = [name for name in names if name not in missing]
    if names[0] in missing or len(present) == 1:
        raise RuntimeError(f"not up: {', '.join(missing)}")
    pair = [_contender(name, fleet, load, is_stock=name == names[0]) for name in present]
    failures = [f"not up: {', '.join(missing)}"] if missing else []
    for clients in load.clients:
        if time.monotonic() > until - 10:
            record.row(stage, clients=clients, skipped="no time was left")
            continue
        try:
            _at_once(stage, pair, clients, load, record)
        except Exception as error:  # fewer or more clients may be answered
            failures.append(f"at {clients} clients {type(error).__name__}: {error}")
    for each in pair:
        for clients in sorted({load.clients[0], min(16, load.clients[-1])}):
            if time.monotonic() < until - 5:
                inside = milliseconds_inside(each.server, each.bodies(load.timed), clients)
                rounded = {name: round(value, 3) for name, value in inside.items()}
                record.row(stage, contender=each.name, concurrency=clients, inside=rounded)
    if failures:
        raise RuntimeError("; ".join(failures))


def _at_once(
    stage: str, pair: Sequence[Contender], clients: int, load: Load, record: Record
) -> None:
    """Compare at one number of clients, with the text-only limit behind it."""
    shortest = _measure(stage, pair, clients, load, record)
    if load.unpruned:
        return
    stock, choose = pair[0].server, random.Random(clients)
    words = words_for(stock.url, shortest, load.output_tokens, choose)
    limit = Contender("text-only", stock, partial(_texts, words, choose, load))
    _measure(stage, [limit], clients, load, record)


def _contender(name: str, fleet: Fleet, load: Load, *, is_stock: bool) -> Contender:
    # The same ones for every contender, and others than those of the pruned servers.
    views = photographs(*load.size, seed=int(load.unpruned))
    settings = {"vtprune": {"rate": 0}} if load.unpruned and not is_stock else {}

    def bodies(count: int) -> list[dict[str, Any]]:
        return [image_body(next(views), load.output_tokens) | settings for _ in range(count)]

    return Contender(name, fleet.servers[name], bodies)


def _texts(words: int, choose: random.Random, load: Load, count: int) -> list[dict[str, Any]]:
    return [text_body(words, load.output_tokens, choose) for _ in range(count)]


def _measure(
    stage: str, some: Sequence[Contender], clients: int, load: Load, record: Record
) -> int:
    """Write one row per contender, and return the tokens of the shortest prompt."""
    before = {each.name: host_seconds(each.server) for each in some}
    prompts: list[int] = []
    for row in compare(some, clients, load.requests, load.rounds):
        each = next(each for each in some if each.name == row["contender"])
        used = host_seconds(each.server)
        used.subtract(before[each.name])
        asked = clients * (1 + load.requests * load.rounds)
        host = {part: round(1000 * seconds / asked, 2) for part, seconds in used.items()}
        size = evidence(each.server.log)["kv_tokens"]
        record.row(stage, **row, kv_tokens=size, host_ms_a_request=host)
        prompts.append(row["prompt_tokens"])
    return min(prompts)


def compare_answers(
    fleet: Fleet, record: Record, items: int, methods: Sequence[str], *, write: bool
) -> None:
    """Ask the trained demo, and count how many of its answers equal a CPU's.

    Args:
        fleet: the servers, with one named `demo`.
        record: where to write the rows.
        items: number of questions.
        methods: pruning methods, each at one ninth; unpruned comes first.
        write: store the answers as the CPU's first.

    Raises:
        RuntimeError: the server is not up.
    """
    if "demo" not in fleet.servers:
        raise RuntimeError("not up: demo")
    data = DATASETS["synthetic"]
    wanted = contenders(methods, [Fraction(1, 9)])
    server = Server(fleet.servers["demo"].url, "demo", concurrency=32)
    questions = list(data.items(None, items))
    found = evaluate(server, data, questions, wanted, record.folder / "demo.jsonl")
    keys = ("method", "keep", "id", "answer")
    lines = [{key: answer[key] for key in keys} for answer in found]
    if write:
        ANSWERS.write_text("".join(json.dumps(line) + "\n" for line in lines))
    known = {_question(line): line["answer"] for line in map(json.loads, _lines(ANSWERS))}
    for contender in wanted:
        mine = [line for line in lines if line["method"] == contender.line]
        other = [line for line in mine if known.get(_question(line)) != line["answer"]]
        differ = [{**line, "cpu": known.get(_question(line))} for line in other]
        scores = [answer["score"] for answer in found if answer["method"] == contender.line]
        record.row(
            "demo",
            method=contender.line,
            answers=len(mine),
            equal=len(mine) - len(other),
            accuracy=round(100 * sum(scores) / len(scores), 2),
            differ=differ[:5],
        )


def _question(line: dict[str, Any]) -> tuple[str, str, str]:
    return line["method"], line["keep"], line["id"]


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines()
