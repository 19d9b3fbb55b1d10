"""How far apart two log-probabilities are, and what is read of an engine's outputs."""

from __future__ import annotations

from math import inf

import pytest
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput

from vllm_pruner.prompt.first_token import FirstToken, margin_of


def _logprobs(*values: float) -> dict[int, Logprob]:
    return {token: Logprob(value) for token, value in enumerate(values)}


@pytest.mark.parametrize(
    ("values", "margin"),
    [
        ((-0.25, -1.5), 1.25),
        ((-3.0, -0.5, -0.75), 0.25),  # the sampled one first, which is not the most probable
        ((-0.5, -0.5), 0.0),
        ((0.0, -inf), 100.0),
        ((-0.1,), 100.0),
    ],
)
def test_the_margin_is_that_of_the_two_most_probable(
    values: tuple[float, ...], margin: float
) -> None:
    assert margin_of(_logprobs(*values)) == margin


def _output(tokens: list[int], logprobs: list[dict[int, Logprob]]) -> RequestOutput:
    completion = CompletionOutput(0, "", tokens, None, logprobs)
    return RequestOutput("name", None, [1, 2, 3], None, [completion], finished=False)


def test_only_the_first_token_says_the_margin_and_all_are_counted() -> None:
    first = FirstToken()
    first.note(_output([], []))
    assert first.margin is None
    first.note(_output([7], [_logprobs(-1.0, -1.5)]))
    first.note(_output([8, 9], [_logprobs(-1.0, -3.0), _logprobs(-1.0, -4.0)]))
    assert (first.margin, first.prompt_tokens, first.completion_tokens) == (0.5, 3, 3)
