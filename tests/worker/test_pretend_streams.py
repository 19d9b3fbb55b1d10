"""The GPU that is not there objects to an order that streams, copies and graphs do not have:
planted here, one by one, each beside what would be right."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from pretend_cuda import pretend_gpu
from pretend_graph import Graph
from pretend_tensor import CARD, host

from vllm_pruner.methods.on_device import sent
from vllm_pruner.telemetry.metrics import TOWER_SECONDS
from vllm_pruner.telemetry.stopwatch import Stopwatch


def _read_elsewhere(waits: bool) -> None:
    numbers, stream = torch.zeros(6, device=CARD), torch.cuda.Stream()
    if waits:
        stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        numbers.sum()
    torch.cuda.current_stream().wait_stream(stream)


def _read_back(waits: bool) -> None:
    stream, done = torch.cuda.Stream(), torch.cuda.Event()
    with torch.cuda.stream(stream):
        numbers = torch.zeros(6, device=CARD).add(1)
        done.record()
    if waits:
        done.wait()
    numbers.sum()
    torch.cuda.synchronize()


def _written_while_read(waits: bool) -> None:
    numbers, stream = torch.zeros(6, device=CARD), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        numbers.sum()
    if waits:
        torch.cuda.current_stream().wait_stream(stream)
    numbers.zero_()
    torch.cuda.synchronize()


def _freed_while_read(promised: bool) -> None:
    numbers, stream = torch.zeros(6, device=CARD), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        numbers.sum()
    if promised:
        numbers.record_stream(stream)
    del numbers
    torch.cuda.current_stream().wait_stream(stream)


def _pinned_written_too_soon(waits: bool) -> None:
    pinned = torch.zeros(6, pin_memory=True)
    sent(pinned, CARD)
    if waits:
        torch.cuda.current_stream().synchronize()
        torch.zeros(1, device=CARD).item()
    pinned.numpy()[2] = 1.0


def _copied_and_written_too_soon(waits: bool) -> None:
    pinned, done = torch.zeros(6, pin_memory=True), torch.cuda.Event()
    torch.zeros(6, device=CARD).copy_(pinned, non_blocking=True)
    done.record()
    assert not done.query(), "the device lags behind"
    if waits:
        assert done.query()
        torch.zeros(1, device=CARD).item()
    pinned[0] = 1.0


ORDERS: dict[str, Callable[[bool], None]] = {
    "use elsewhere": _read_elsewhere,
    "uses on another stream": _read_back,
    "writes what sum uses": _written_while_read,
    "freed while sum uses it": _freed_while_read,
    "written before a copy in .*on_device:sent": _pinned_written_too_soon,
    "written before copy_": _copied_and_written_too_soon,
}
ORDERS["reads what zeros uses"] = ORDERS.pop("use elsewhere")


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("said", ORDERS)
def test_an_order_that_is_not_there_is_a_fault(said: str, ordered: bool) -> None:
    fault = nullcontext() if ordered else pytest.raises(RuntimeError, match=said)
    with fault, torch.inference_mode(), pretend_gpu():
        ORDERS[said](ordered)


def test_a_replay_spoils_what_another_graph_of_its_pool_left() -> None:
    with torch.inference_mode(), pretend_gpu():
        given, graphs, outputs = torch.ones(3, device=CARD), [Graph(), Graph()], []
        for graph, pool in zip(graphs, (None, graphs[0].pool()), strict=True):
            with torch.cuda.graph(graph, pool=pool):
                outputs.append(given + 1)
        for graph in graphs:
            graph.replay()
        first, second = map(host, outputs)
        assert first.isnan().all() and torch.equal(second, torch.full((3,), 2.0))


def test_a_graph_reads_what_was_written_on_another_stream() -> None:
    with pytest.raises(RuntimeError, match="a graph reads"), torch.inference_mode(), pretend_gpu():
        given, graph = torch.ones(3, device=CARD), Graph()
        with torch.cuda.graph(graph):
            given.add(1)
        with torch.cuda.stream(torch.cuda.Stream()):
            given.copy_(torch.zeros(3, device=CARD))
        graph.replay()


def test_new_memory_holds_nothing_to_rely_on() -> None:
    with torch.inference_mode(), pretend_gpu():
        empty = torch.empty(3, device=CARD)
        assert host(empty).isnan().all() and host(empty.new_empty(2)).isnan().all()
        assert host(torch.empty(2, dtype=torch.int64, device=CARD)).ne(0).all()


def test_a_stopwatch_reads_a_time_only_once_the_device_is_done() -> None:
    with pretend_gpu() as card:
        watch = Stopwatch(TOWER_SECONDS, CARD)
        for pieces, seconds in ((1, None), (1, None), (1, 1e-3)):
            with watch.measure(pieces=pieces):
                pass
            assert watch.seconds_per_piece == seconds
        assert not card.waits
    with pretend_gpu(), pytest.raises(RuntimeError, match="not ready"):
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        for each in events:
            each.record()
        events[0].elapsed_time(events[1])
