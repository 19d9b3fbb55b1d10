"""How many threads torch uses where prompts are rendered, and elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from vllm_pruner.prompt.render_thread import compute_alone


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _elsewhere(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_thread_that_renders_computes_alone_and_the_main_thread_as_before() -> None:
    seen = []

    def render() -> None:
        seen.append(torch.get_num_threads())
        compute_alone()
        seen.append(torch.get_num_threads())

    _elsewhere(render)
    assert seen == [2, 1]
    assert torch.get_num_threads() == 2


def test_a_main_thread_that_renders_keeps_its_threads() -> None:
    """An offline engine may run in it."""
    compute_alone()
    assert torch.get_num_threads() == 2
