"""Minutes of saturation with bad requests mixed in: nothing breaks, leaks or goes unanswered.

    make soak ARGS="--minutes 10"

Good users (pictures, texts, conversations) keep the server saturated by locust; at the same time
come malformed pictures, absurd settings, oversized bodies and clients that hang up. It must hold
that

- every good request is answered, and the same question has the same answer before and after;
- a bad request gets no 5xx, unless stock vLLM answers the same bytes with the same status;
- memory grows by no more than the caches may hold, plus `SLACK_MB`.

Exits with 1 and the reason if one of these does not hold. The figures go to `results/soak.json`.
"""

from __future__ import annotations

import argparse
import base64
import collections
import contextlib
import json
import random
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from _bad_requests import BAD, hang_up_body
from _load import Load, answers
from _machine import describe
from _memory import MemoryWatch
from vllm_process import VllmProcess

PHOTO = Path(__file__).parents[1] / "assets" / "photos" / "cat.jpg"
RESULTS = Path(__file__).parent / "results" / "soak.json"
FEATURE_MB, PROCESSOR_MB, KV_BLOCKS = 64, 128, 256
KV_MB = KV_BLOCKS * 128 * 4 // 1024
"""Blocks of 128 tokens of 4 KB each in the demo model. Pages count once they are used."""

BOUNDS_MB = FEATURE_MB + 2 * PROCESSOR_MB + KV_MB
"""vLLM caches preprocessed images in the API server and again in the engine."""

SLACK_MB = 256
"""What allocators may keep of bodies of 32 MB and prompts of 400,000 words."""

FLAGS = ["--dtype", "float32", "--max-num-seqs", "64"]
PRUNED = ["--plugin", "vtprune", "--prune-feature-cache-mb", str(FEATURE_MB)]
PRUNED += ["--mm-processor-cache-gb", str(PROCESSOR_MB / 1024)]
PRUNED += ["--num-gpu-blocks-override", str(KV_BLOCKS)]
HEADERS = {"Content-Type": "application/json"}
PATH = "/v1/chat/completions"
BROKEN = 0
"""Status of a request whose connection broke."""


def main() -> None:
    """Run the soak and report what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--bad-users", type=int, default=12, help="clients that misbehave")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = Soak(Path(folder), arguments).run()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**describe(), **vars(arguments), **found}, indent=1) + "\n")
    print(json.dumps({key: found[key] for key in found if key != "samples"}, indent=1))
    sys.exit("\n".join(found["faults"]) or 0)


class Soak:
    """One soak of one server."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self._folder, self._arguments = folder, arguments
        self._seconds = 60 * arguments.minutes
        self._over = threading.Event()
        self._statuses: collections.Counter[str] = collections.Counter()
        self._suspects: list[tuple[str, int, bytes]] = []

    def run(self) -> dict[str, Any]:
        """Return what was found; `faults` is empty if all holds."""
        server = VllmProcess(self._folder / "pruned.log", "demo", *FLAGS, *PRUNED)
        with server:
            before = _answer(server.url)
            answers(self._load("mixed_traffic", 8, seconds=5), server.url)  # warms up
            with MemoryWatch(server.pid) as memory:
                good = self._soak(server.url)
            same = _answer(server.url) == before
        growth = memory.quarter(3) - memory.quarter(0)
        bad = self._statuses.total()
        return {
            "faults": [*self._faults(good, same, growth), *self._not_stocks()],
            "good_requests": len(good),
            "bad_requests": dict(sorted(self._statuses.items())),
            "bad_share": round(bad / (bad + len(good)), 3),
            "memory_mb": [round(memory.quarter(which)) for which in range(4)],
            "memory_growth_mb": round(growth, 1),
            "memory_growth_second_half_mb_per_minute": round(memory.growth_per_minute(), 2),
            "samples": [[round(t, 1), round(mb, 1)] for t, mb in memory.samples],
        }

    def _faults(self, good: list[dict[str, Any]], same: bool, growth: float) -> list[str]:
        failed = collections.Counter(record["error"] for record in good if "error" in record)
        faults = [f"{count} good requests failed: {error}" for error, count in failed.items()]
        if not same:
            faults.append("the same question has another answer after the soak")
        if growth > BOUNDS_MB + SLACK_MB:
            faults.append(f"memory grew by {growth:.0f} MB; caches may hold {BOUNDS_MB} MB")
        return faults

    def _load(self, scenario: str, users: int, seconds: float) -> Load:
        seed = 1000 + self._arguments.seed + users
        return Load(scenario, users=users, seconds=seconds, seed=seed, pictures="synthetic")

    def _soak(self, url: str) -> list[dict[str, Any]]:
        """Send all traffic at once; return the records of the good requests."""
        users = self._arguments.users
        loads = [("mixed_traffic", users - users // 4), ("multi_turn", users // 4)]
        with ThreadPoolExecutor(len(loads) + self._arguments.bad_users) as pool:
            good = [
                pool.submit(answers, self._load(scenario, count, self._seconds), url)
                for scenario, count in loads
                if count
            ]
            numbers = range(self._arguments.bad_users)
            bad = [pool.submit(self._misbehave, url, number) for number in numbers]
            try:
                return [record for future in good for record in future.result()]
            finally:
                self._over.set()
                for future in bad:
                    future.result()

    def _misbehave(self, url: str, number: int) -> None:
        """Send bad requests one after another until the good ones are done."""
        choose = random.Random(f"{self._arguments.seed}/{number}")
        while not self._over.wait(choose.uniform(0, 0.3)):
            if choose.random() < 0.3:
                self._hang_up(url, choose)
                continue
            kind = choose.choice(list(BAD))
            body = BAD[kind](choose)
            status = _status(url, body)
            self._statuses[f"{kind}: {status}"] += 1
            if status >= 500 or status == BROKEN:
                self._suspects.append((kind, status, body))

    def _hang_up(self, url: str, choose: random.Random) -> None:
        """Disconnect at once, or after a part of the answer."""
        pieces = choose.randrange(6)
        request = {"content": hang_up_body(choose), "headers": HEADERS, "timeout": 300}
        with contextlib.suppress(httpx.TransportError):
            with httpx.stream("POST", url + PATH, **request) as response:
                for _, _ in zip(range(pieces), response.iter_raw(), strict=False):
                    time.sleep(choose.uniform(0, 0.05))
            self._statuses[f"hung up: {response.status_code}"] += 1

    def _not_stocks(self) -> list[str]:
        """Return the 5xx that stock vLLM, started if there are any, does not give for the same
        bytes."""
        if not self._suspects:
            return []
        stock = VllmProcess(self._folder / "stock.log", "demo", *FLAGS, VLLM_PLUGINS="none")
        with stock:
            compared = {
                f"{kind}: {status}, stock {_status(stock.url, body)}": status
                for kind, status, body in self._suspects
            }
        return [line for line, status in compared.items() if not line.endswith(f"stock {status}")]


def _status(url: str, body: bytes) -> int:
    """Return the status of a request, sent on its own connection."""
    try:
        return httpx.post(url + PATH, content=body, headers=HEADERS, timeout=300).status_code
    except httpx.TransportError:
        return BROKEN


def _answer(url: str) -> str:
    """Return the answer to a fixed question about a fixed photograph."""
    photo = base64.b64encode(PHOTO.read_bytes()).decode()
    image = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{photo}"}}
    content = [image, {"type": "text", "text": "What is in this picture?"}]
    messages = [{"role": "user", "content": content}]
    body = {"model": "demo", "messages": messages, "max_tokens": 12, "temperature": 0}
    response = httpx.post(url + PATH, json=body, timeout=300).raise_for_status()
    return str(response.json()["choices"][0]["message"]["content"])


if __name__ == "__main__":
    main()
