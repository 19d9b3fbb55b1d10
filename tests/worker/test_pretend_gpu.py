"""The GPU that is not there objects to what a real one would: planted here, one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pretend_cuda import pretend_gpu
from pretend_gpu import Card
from pretend_graph import Graph
from pretend_tensor import CARD, OnCard, host
from vtprune_kernels import gather_rows, top_k_sorted

from vllm_pruner.methods.on_device import on_device, sent
from vllm_pruner.worker.recorder import HostFree

Numbers = torch.Tensor

WAITS: dict[str, Callable[[Numbers], object]] = {
    "item": lambda it: it.sum().item(),
    "bool": lambda it: bool(it.any()),
    "int": lambda it: int(it[2]),
    "tolist": lambda it: it.tolist(),
    "numpy": lambda it: it.numpy(),
    "cpu": lambda it: it.cpu(),
    "to the host": lambda it: it.to("cpu", non_blocking=True),
    "copied to the host": lambda it: torch.empty(6).copy_(it),
    "a mask": lambda it: it[it > 2],
    "rows behind a mask": lambda it: it.__setitem__(it > 2, it[:3].clone()),
    "where": lambda it: torch.where(it > 2),
    "nonzero": lambda it: (it > 2).nonzero(),
    "unique": lambda it: it.unique(),
    "equal": lambda it: torch.equal(it, it),
    "repeats": lambda it: it.repeat_interleave(it.long()),
    "a place on the card": lambda it: it[it.argmax()],
    "an index of the host": lambda it: it[torch.tensor([0, 1])],
    "from a list": lambda it: torch.tensor([1.0], device=it.device),
    "from a list, as it": lambda it: it.new_tensor([1.0]),
    "from memory that may move": lambda it: torch.ones(3).to(it.device, non_blocking=True),
    "with gaps": lambda it: torch.ones(3, 4)[:, :2].pin_memory().to(it.device, non_blocking=True),
    "at once": lambda it: torch.ones(3).pin_memory().to(it.device),
    "written from the host": lambda it: it.copy_(torch.ones(6)),
    "synchronize": lambda it: torch.cuda.synchronize(),
}

NO_WAITS: dict[str, Callable[[Numbers], object]] = {
    "numbers that were sent": lambda it: it + on_device([1, 2, 3, 4, 5, 6], it.device),
    "a tensor that was sent": lambda it: it + sent(torch.ones(6), it.device),
    "sent as another dtype": lambda it: (
        it + torch.ones(2, 6).T[:, 0].contiguous().pin_memory().to(it.device, torch.int64, True)
    ),
    "a number of the host": lambda it: it + torch.tensor(2.0),
    "a number behind a mask": lambda it: it.masked_fill(it > 2, 1.0).__setitem__(it > 3, 0.0),
    "an index": lambda it: it[torch.arange(3, device=it.device)],
    "repeats of known length": lambda it: it.repeat_interleave(
        torch.ones(6, dtype=torch.int64, device=it.device), output_size=6
    ),
    "views": lambda it: it.view(2, 3).expand(4, 2, 3).flatten(0, 1).split(4)[0].view(torch.int32),
    "events": lambda it: torch.cuda.Event(enable_timing=True).query(),
}

MIXES: dict[str, Callable[[Numbers], object]] = {
    "sum": lambda it: it + torch.ones(6),
    "cat": lambda it: torch.cat([it, torch.ones(1)]),
    "gather": lambda it: it.gather(0, torch.zeros(2, dtype=torch.int64)),
    "an operator of ours": lambda it: gather_rows(
        [it.view(1, 6, 1)], torch.zeros(1, 2, dtype=torch.int64)
    ),
}


def _on_card(card: Card) -> Numbers:
    numbers = torch.arange(6.0, device=CARD)
    assert isinstance(numbers, OnCard) and numbers.is_cuda and not card.waits
    return numbers


@pytest.mark.parametrize("planted", WAITS.values(), ids=[*WAITS])
def test_a_wait_is_noted_where_it_is(planted: Callable[[Numbers], object]) -> None:
    with torch.inference_mode(), pretend_gpu() as card:
        planted(_on_card(card))
    (wait,) = card.waits
    assert wait.endswith("test_pretend_gpu:<lambda>")


@pytest.mark.parametrize("harmless", NO_WAITS.values(), ids=[*NO_WAITS])
def test_the_rest_waits_for_nothing(harmless: Callable[[Numbers], object]) -> None:
    with torch.inference_mode(), pretend_gpu() as card:
        harmless(_on_card(card))
    assert not card.waits


@pytest.mark.parametrize("planted", MIXES.values(), ids=[*MIXES])
def test_a_tensor_of_the_host_is_not_taken(planted: Callable[[Numbers], object]) -> None:
    with (
        torch.inference_mode(),
        pretend_gpu() as card,
        pytest.raises(RuntimeError, match="same device"),
    ):
        planted(_on_card(card))


def _allowed(numbers: Numbers) -> None:
    numbers.tolist()


def test_a_wait_is_allowed_in_one_function_alone() -> None:
    place = f"{__name__}:{_allowed.__qualname__}"
    with torch.inference_mode(), pretend_gpu({place, "vllm:unused"}) as card:
        numbers = _on_card(card)
        _allowed(numbers)
        assert not card.waits and card.unused == {"vllm:unused"}
        numbers.tolist()
    assert len(card.waits) == 1


def test_our_operators_give_what_they_give_on_a_cpu() -> None:
    scores = torch.rand(3, 50, generator=torch.Generator().manual_seed(0))
    expected = top_k_sorted(scores, 7)
    with torch.inference_mode(), pretend_gpu() as card:
        found = top_k_sorted(sent(scores, CARD), 7)
    assert torch.equal(host(found), expected) and not card.waits


def test_what_inference_made_is_not_written_outside_of_it() -> None:
    with pretend_gpu():
        with torch.inference_mode():
            buffer = torch.zeros(3, device=CARD)
        with torch.no_grad(), pytest.raises(RuntimeError, match="outside InferenceMode"):
            buffer.fill_(1.0)


def _captured(work: Callable[[Numbers], Numbers]) -> tuple[Numbers, Graph, Numbers]:
    """A buffer, a graph that reads it, and the graph's output."""
    buffer, graph = torch.arange(6.0, device=CARD), Graph()
    with torch.cuda.graph(graph):
        return buffer, graph, work(buffer)


def test_a_graph_runs_again_what_was_captured() -> None:
    with torch.inference_mode(), pretend_gpu():
        buffer, graph, output = _captured(
            lambda it: torch.zeros(6, device=CARD).index_add_(0, it.argsort(), it).view(2, 3)
        )
        assert not host(output).any(), "CUDA does not run what it captures"
        for shift in range(2):
            buffer.copy_((torch.arange(6.0, device=CARD) + shift).flip(0))
            graph.replay()
            expected = torch.arange(6.0) + shift
            assert torch.equal(host(output).flatten(), expected)


@pytest.mark.parametrize(
    "planted", [WAITS["item"], WAITS["cpu"], WAITS["an index of the host"], WAITS["from a list"]]
)
def test_a_graph_holds_no_wait(planted: Callable[[Numbers], Numbers]) -> None:
    with torch.inference_mode(), pretend_gpu():
        with pytest.raises(RuntimeError, match="capturing"):
            _captured(planted)
        with torch.cuda.graph(Graph()):
            torch.ones(3, device=CARD).add(1)


def test_a_graph_holds_nothing_that_is_sent() -> None:
    """It would read memory of the host that has been used again."""
    with torch.inference_mode(), pretend_gpu():
        with pytest.raises(RuntimeError, match="memory of the host"):
            _captured(lambda it: it + on_device([1, 2, 3, 4, 5, 6], it.device))
        with HostFree(), pytest.raises(RuntimeError, match="the host takes part"):
            on_device([1, 2], CARD)
