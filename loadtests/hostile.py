"""Attack a pruned server with everything a stranger can send: nothing breaks, nobody else notices.

    make hostile                       every stage, about twenty minutes on two cores
    make hostile ARGS="--quick"        the same with few requests

pictures    unusual, unaffordable and broken files: a 200 or 400, and no memory for refused ones
crowd       1,000 pictures in one request, and 400 to explain: refused; the next chat is as fast
hang-ups    clients that disconnect at random moments: no other client's request is lost
costs       explanations during a chat: the chat takes at most `FACTOR` times as long as alone
memory      many different pictures: memory grows no further than the caches' stated sizes
preemption  a KV cache of a few blocks, steps of 64 and 16 tokens: same answers as with a large one

Exits with 1 and the reasons if something does not hold. Figures go to `results/hostile.json`.
`soak.py` runs ten minutes at saturation.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from _machine import describe
from _memory import MemoryWatch
from _odd_pictures import BROKEN, DEAR, ODD
from _stranger import CHAT, Client, body, picture
from vllm_process import VllmProcess

RESULTS = Path(__file__).parent / "results" / "hostile.json"
FLAGS = ["--dtype", "float32", "--max-num-seqs", "64", "--enforce-eager", "--plugin", "vtprune"]
FEATURE_MB, PROCESSOR_MB = 32, 64
ROOMY = ["--prune-feature-cache-mb", str(FEATURE_MB), "--num-gpu-blocks-override", "256"]
ROOMY += ["--mm-processor-cache-gb", str(PROCESSOR_MB / 1024)]
CACHES_MB = {"API server": PROCESSOR_MB, "engine": PROCESSOR_MB, "worker": FEATURE_MB}
"""vLLM caches preprocessed pictures in the API server and again in the engine."""
BOUNDS_MB = sum(CACHES_MB.values())
SLACK_MB = 192
"""What allocators may keep, including bodies and pictures in flight."""
FACTOR = 8
"""Largest ratio of a chat's latency beside twenty explanations to its latency alone."""


class Hostile:
    """All stages."""

    def __init__(self, folder: Path, quick: bool) -> None:
        self._folder, self._quick = folder, quick
        self.faults: list[str] = []
        self.figures: dict[str, Any] = {}

    def run(self, stages: list[str]) -> None:
        for stage in stages:
            print(f"{stage} ...", flush=True)
            start = time.monotonic()
            self.figures[stage] = getattr(self, f"_{stage.replace('-', '_')}")()
            self.figures[stage]["seconds"] = round(time.monotonic() - start, 1)
            print(json.dumps(self.figures[stage]), flush=True)

    def _hold(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(fault)

    @contextmanager
    def _serving(self, name: str, *flags: str) -> Iterator[Client]:
        with VllmProcess(self._folder / f"{name}.log", "demo", *FLAGS, *flags) as server:
            client = Client(server)
            client.chat(picture(0)).raise_for_status()
            yield client

    def _pictures(self) -> dict[str, Any]:
        statuses: collections.Counter[str] = collections.Counter()
        with self._serving("pictures", *ROOMY) as client:
            before = client.memory()
            for kind, files in (("odd", ODD), ("dear", DEAR), ("broken", BROKEN)):
                for name, file in files.items():
                    response = client.chat(file)
                    statuses[f"{kind}: {response.status_code}"] += 1
                    allowed = (400,) if kind == "dear" else (200, 400)
                    self._hold(
                        response.status_code in allowed,
                        f"{name} got {response.status_code}: {response.text[:200]}",
                    )
            grown = client.memory() - before
            self._hold(grown < BOUNDS_MB + SLACK_MB, f"odd pictures left {grown:.0f} MB behind")
            self._hold(client.chat(picture(1)).status_code == 200, "a sound picture afterwards")
        return {"statuses": dict(statuses), "grown_mb": round(grown)}

    def _crowd(self) -> dict[str, Any]:
        tiny = picture(2, 16, 16)
        with self._serving("crowd", *ROOMY) as client:
            alone = _seconds(partial(client.chat, picture("alone")))
            found = {}
            for name, ask in (
                ("1,000 pictures in a chat", lambda: client.chat(*[tiny] * 1000)),
                ("400 pictures to explain", lambda: client.explain(*[tiny] * 400)),
            ):
                before = client.memory()
                start = time.monotonic()
                response = ask()
                found[name] = {
                    "status": response.status_code,
                    "seconds": round(time.monotonic() - start, 2),
                    "grown_mb": round(client.memory() - before),
                }
                self._hold(response.status_code == 400, f"{name} got {response.status_code}")
                after = _seconds(partial(client.chat, picture("after")))
                found[name]["next_chat_over_alone"] = round(after / alone, 2)
        return found

    def _hang_ups(self) -> dict[str, Any]:
        good, bad = (8, 24) if self._quick else (50, 200)
        choose = random.Random(3)
        moments = [choose.uniform(0, 1.0) for _ in range(bad)]
        with self._serving("hang-ups", *ROOMY) as client:

            def leave(number: int) -> None:
                asked = body(picture(f"left {number}"), stream=True, max_tokens=200)
                try:
                    with httpx.stream(
                        "POST", client.server.url + CHAT, json=asked, timeout=moments[number]
                    ) as response:
                        for _ in response.iter_raw():
                            pass
                except httpx.TransportError:
                    pass

            with ThreadPoolExecutor(32) as pool:
                leaving = [pool.submit(leave, number) for number in range(bad)]
                asking = [pool.submit(client.chat, picture(f"good {n}")) for n in range(good)]
                statuses = collections.Counter(each.result().status_code for each in asking)
                for each in leaving:
                    each.result()
            self._hold(statuses == {200: good}, f"good requests beside hang-ups got {statuses}")
            time.sleep(2)
            running = client.metric("vllm:num_requests_running")
            self._hold(not running, f"{running:.0f} requests go on without a client")
            again = [client.chat(picture(f"left {n}")).status_code for n in range(bad)]
            self._hold(set(again) == {200}, "a picture that was hung up on is refused afterwards")
        return {"good": good, "hung_up": bad, "asked_again": len(again)}

    def _costs(self) -> dict[str, Any]:
        sixteen = [picture(n) for n in range(16)]
        with self._serving("costs", *ROOMY) as client:
            alone = statistics.median(
                _seconds(partial(client.chat, picture(f"alone {n}"))) for n in range(5)
            )
            with ThreadPoolExecutor(20) as pool:
                explaining = [pool.submit(client.explain, *sixteen) for _ in range(20)]
                time.sleep(0.5)
                beside = []
                while not all(each.done() for each in explaining):
                    beside.append(_seconds(partial(client.chat, picture(f"b {len(beside)}"))))
            statuses = collections.Counter(each.result().status_code for each in explaining)
        ratio = statistics.median(beside or [alone]) / alone
        self._hold(statuses == {200: 20}, f"explanations got {statuses}")
        self._hold(bool(beside), "no chat ran during the explanations")
        self._hold(ratio <= FACTOR, f"a chat beside explanations takes {ratio:.1f} times as long")
        return {"chats_beside": len(beside), "beside_over_alone": round(ratio, 2)}

    def _memory(self) -> dict[str, Any]:
        count = 200 if self._quick else 2000
        with self._serving("memory", *ROOMY) as client:
            for number in range(50):
                client.chat(picture(f"warm {number}")).raise_for_status()
            with MemoryWatch(client.server.pid, every=0.5) as memory, ThreadPoolExecutor(8) as pool:
                asked = [pool.submit(client.chat, picture(f"m {n}")) for n in range(count)]
                statuses = collections.Counter(each.result().status_code for each in asked)
        self._hold(statuses == {200: count}, f"different pictures got {statuses}")
        grown = {name: round(mb) for name, mb in memory.growth_by_process().items()}
        for name, growth in grown.items():
            self._hold(
                growth < CACHES_MB.get(name, 0) + SLACK_MB,
                f"the {name} grew by {growth} MB; its caches hold {CACHES_MB.get(name, 0)}",
            )
        quarters = [round(memory.quarter(which)) for which in range(4)]
        return {"pictures": count, "quarters_mb": quarters, "grown_mb": grown} | {
            "caches_mb": CACHES_MB
        }

    def _preemption(self) -> dict[str, Any]:
        count = 24 if self._quick else 128
        asked = [(picture(f"p {n}"), {"max_tokens": 160, "ignore_eos": True}) for n in range(count)]

        def texts(client: Client) -> list[str]:
            with ThreadPoolExecutor(32) as pool:
                answers = list(pool.map(lambda each: client.chat(each[0], **each[1]), asked))
            return [each.json()["choices"][0]["message"]["content"] for each in answers]

        blocks = ["--block-size", "32", "--no-enable-prefix-caching"]
        with self._serving("roomy", *blocks, "--num-gpu-blocks-override", "2048") as client:
            expected = texts(client)
        found: dict[str, Any] = {"requests": count}
        for step in (64, 16):
            tight = ["--num-gpu-blocks-override", "34", "--max-model-len", "1024"]
            tight += ["--max-num-batched-tokens", str(step), "--max-num-seqs", "16"]
            with self._serving(f"step {step}", *blocks, *tight) as client:
                same = sum(a == b for a, b in zip(texts(client), expected, strict=True))
                preempted = client.metric("vllm:num_preemptions_total")
            found[f"steps of {step}"] = {"same": same, "preemptions": int(preempted)}
            self._hold(same == count, f"in steps of {step}, {count - same} answers differ")
            self._hold(preempted > 0, f"in steps of {step} nothing was preempted")
        return found


def _seconds(ask: Callable[[], httpx.Response]) -> float:
    start = time.monotonic()
    ask().raise_for_status()
    return time.monotonic() - start


STAGES = ["pictures", "crowd", "hang-ups", "costs", "memory", "preemption"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], metavar="STAGE")
    parser.add_argument("--quick", action="store_true", help="few requests; no figures are written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        hostile = Hostile(Path(folder), arguments.quick)
        hostile.run(arguments.stages or STAGES)
    if not arguments.quick and not arguments.stages:
        RESULTS.parent.mkdir(exist_ok=True)
        found = {**describe(), "faults": hostile.faults, **hostile.figures}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit("\n".join(hostile.faults) or 0)


if __name__ == "__main__":
    main()
