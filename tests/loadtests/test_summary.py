"""Figures are those that a statistics library gives, and only whole answers are good."""

from __future__ import annotations

import numpy as np
import pytest
from _summary import percentile, summary


@pytest.mark.parametrize("count", [1, 2, 3, 20, 101])
@pytest.mark.parametrize("percent", [0, 50, 95, 99, 100])
def test_percentile_is_numpys(count, percent) -> None:
    values = np.random.default_rng(count).exponential(size=count)
    assert percentile(list(values), percent) == pytest.approx(np.percentile(values, percent))


def test_percentile_of_nothing_is_nothing() -> None:
    assert percentile([], 50) is None


def answer(sent: float, ttft: float, total: float) -> dict:
    gaps = [(total - ttft) / 2] * 2
    tokens = {"prompt_tokens": 90, "completion_tokens": 3}
    return {"name": "A", "sent": sent, "ttft": ttft, "gaps": gaps, "total": total, **tokens}


def test_rates_are_over_the_whole_time_and_failures_count_for_nothing() -> None:
    """Two answers in four seconds; one of them late, and a third request failed last."""
    failed = {"name": "A", "sent": 102.0, "total": 2.0, "error": "HTTP 503"}
    figures = summary([answer(100, 0.5, 1), answer(100, 1.5, 2), failed], slo_ttft=1.0)
    assert (figures["requests"], figures["failed"], figures["errors"]) == (3, 1, ["HTTP 503"])
    assert figures["seconds"] == 4
    assert figures["requests_per_s"] == 0.5
    assert figures["goodput_per_s"] == 0.25
    assert figures["output_tokens_per_s"] == 1.5
    assert figures["ttft_p50_s"] == 1.0
    assert figures["itl_p50_s"] == 0.25


def test_no_more_is_good_in_a_second_than_arrives() -> None:
    """One quick answer in ten seconds of arrivals is a tenth a second, not two; a drain counts."""
    figures = summary([answer(104, 0.2, 0.5)], slo_ttft=1.0, window=10)
    assert figures["arrivals_per_s"] == figures["goodput_per_s"] == 0.1
    late = summary([answer(100, 0.2, 1), answer(109, 0.2, 11)], slo_ttft=1.0, window=10)
    assert late["arrivals_per_s"] == 0.2
    assert late["goodput_per_s"] == 0.1


def test_a_load_that_failed_wholly_has_no_times() -> None:
    failed = {"name": "A", "sent": 1.0, "total": 2.0, "error": "HTTP 503"}
    figures = summary([failed], slo_ttft=1.0)
    assert figures["requests_per_s"] == figures["goodput_per_s"] == 0
    assert figures["ttft_p50_s"] is figures["prompt_tokens"] is None
