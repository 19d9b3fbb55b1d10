"""What the processes of `test_metrics.py` count. A spawned process imports it by name, so it is a
module of a folder that pytest puts on the path, and the test file is not."""

from __future__ import annotations

from vllm_pruner.telemetry import metrics

COUNTER = metrics.Metric("vtprune_test", "Of this test", ("method",))
LEVEL = metrics.Metric("vtprune_level", "Of this test", kind="gauge_sum")
SIZES = metrics.Histogram("vtprune_sizes", "Of this test", (1.0, 2.0, 4.0), ("method",))


def work(times: int) -> None:
    """Count 2 `times` times, and hold `times`."""
    for _ in range(times):
        COUNTER.add(2, method="a")
    LEVEL.set(times)


def observe(*values: float) -> None:
    """Count each."""
    for value in values:
        SIZES.observe(value, method="a")


def serve(model: str) -> None:
    """Count once each under the name of a model."""
    metrics.set_model(model)
    work(1)
    observe(1.5)
