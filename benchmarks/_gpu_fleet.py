"""Servers that start in parallel within a GPU's memory, and what each costs the host."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import psutil
from _gpu_record import Record, evidence
from _serving import search_path
from vllm_process import VllmProcess

__all__ = ["Fleet", "Wanted", "host_seconds"]


@dataclass(frozen=True)
class Wanted:
    """A server to start."""

    name: str
    model: str
    flags: tuple[str, ...] = ()
    weights_gb: float = 0.0
    """Weights, activations and CUDA graphs."""
    kv_gb: float = 0.0
    """The KV cache. Given to vLLM so that it does not profile memory, which servers that start in
    parallel would disturb."""

    def command(self, on_gpu: bool) -> list[str]:
        """Return the flags, including those for the device."""
        shared = [*self.flags, "--worker-extension-cls", "worker_timer.WorkerTimer"]
        if not on_gpu:
            return [*shared, "--enforce-eager"]
        size = str(int(self.kv_gb * 1e9))
        share = "0.1" if self.weights_gb > 5 else "0.03"
        return [*shared, "--kv-cache-memory-bytes", size, "--gpu-memory-utilization", share]


@dataclass
class Fleet:
    """The servers of one wave."""

    record: Record
    wanted: Sequence[Wanted]
    on_gpu: bool
    servers: dict[str, VllmProcess] = field(default_factory=dict)
    """The servers that are ready, by name."""
    _started: dict[str, VllmProcess] = field(default_factory=dict)
    _tried: set[str] = field(default_factory=set)
    """Names of those that are ready or have failed."""
    _threads: list[threading.Thread] = field(default_factory=list)

    def begin(self) -> None:
        """Start all servers: with a GPU in parallel, else one after another."""
        each = [(one,) for one in self.wanted] if self.on_gpu else [tuple(self.wanted)]
        for some in each:
            thread = threading.Thread(target=self._start, args=some, daemon=True)
            thread.start()
            self._threads.append(thread)

    def _start(self, *some: Wanted) -> None:
        for one in some:
            log = self.record.folder / f"{one.name.replace(' ', '-').replace('/', '_')}.log"
            flags = one.command(self.on_gpu)
            server = VllmProcess(log, one.model, *flags, PYTHONPATH=search_path())
            self._started[one.name] = server
            began = time.monotonic()
            try:
                server.start()
            except Exception as error:
                self.record.row("start", server=one.name, failed=str(error)[-1500:])
                self._tried.add(one.name)
                continue
            self.servers[one.name] = server
            self._tried.add(one.name)
            seconds = round(time.monotonic() - began, 1)
            self.record.row("start", server=one.name, seconds=seconds, **evidence(server.log))

    def wait(self, until: float) -> None:
        """Wait until all have started, at most until `time.monotonic()` is `until`."""
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def wait_for(self, name: str, until: float) -> None:
        """Wait until one has started or failed, at most until `time.monotonic()` is `until`."""
        while name not in self._tried and time.monotonic() < until:
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop all servers, and record what their logs say."""
        threads = [threading.Thread(target=self._stop, args=(name,)) for name in self._started]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

    def _stop(self, name: str) -> None:
        server = self._started[name]
        if hasattr(server, "_process"):
            server.stop()
            self.record.row("logs", server=name, **evidence(server.log))


def waves(wanted: Sequence[Sequence[Wanted]], gb: float) -> Iterator[list[int]]:
    """Yield the indices of the groups of servers that together fit into `gb`, in order."""
    wave: list[int] = []
    used = 0.0
    for number, group in enumerate(wanted):
        needed = sum(one.weights_gb + one.kv_gb for one in group)
        if wave and used + needed > gb:
            yield wave
            wave, used = [], 0.0
        wave.append(number)
        used += needed
    if wave:
        yield wave


def host_seconds(server: VllmProcess) -> Counter[str]:
    """Return the CPU seconds of a server's processes so far, by their role."""
    found: Counter[str] = Counter()
    first = psutil.Process(server.pid)
    for process in [first, *first.children(recursive=True)]:
        try:
            title, used = " ".join(process.cmdline()), process.cpu_times()
        except psutil.Error:
            continue
        _, marked, role = title.partition("VLLM::")
        found[role.split("_")[0].split()[0] if marked else "server"] += used.user + used.system
    return found
