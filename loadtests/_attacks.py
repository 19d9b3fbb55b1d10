"""What `hostile.py` does to a pruned server, stage by stage."""

from __future__ import annotations

import collections
import random
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from _memory import MemoryWatch
from _odd_pictures import BROKEN, DEAR, ODD
from _stranger import Client, picture
from vllm_process import VllmProcess

__all__ = ["Attacks"]

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


class Attacks:
    """Each stage serves a model, attacks it, notes what does not hold and returns its figures."""

    def __init__(self, folder: Path, quick: bool) -> None:
        self._folder, self._quick = folder, quick
        self.faults: list[str] = []
        """What did not hold."""

    def _hold(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(fault)

    @contextmanager
    def _serving(self, name: str, *flags: str) -> Iterator[Client]:
        with VllmProcess(self._folder / f"{name}.log", "demo", *FLAGS, *flags) as server:
            client = Client(server)
            client.chat(picture(0)).raise_for_status()
            yield client

    def pictures(self) -> dict[str, Any]:
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

    def crowd(self) -> dict[str, Any]:
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

    def hang_ups(self) -> dict[str, Any]:
        good, bad = (8, 24) if self._quick else (50, 200)
        choose = random.Random(3)
        moments = [choose.uniform(0, 1.0) for _ in range(bad)]
        with self._serving("hang-ups", *ROOMY) as client:
            with ThreadPoolExecutor(32) as pool:
                leaving = [
                    pool.submit(client.leave, picture(f"left {n}"), moments[n]) for n in range(bad)
                ]
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

    def costs(self) -> dict[str, Any]:
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

    def memory(self) -> dict[str, Any]:
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

    def preemption(self) -> dict[str, Any]:
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
