"""What Ray's own exporter shows of the metrics, by a real Ray on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from counted import observe

from vllm_pruner.telemetry import metrics
from vllm_pruner.telemetry.ray_exporter import Exporter

ray = pytest.importorskip("ray", reason="no Ray here: make test-ray")


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of Ray's exporter; counts of this process go to a folder of the test's."""
    monkeypatch.setenv("VLLM_VTPRUNE_METRICS_DIR", str(tmp_path))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    context = ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    node = context.address_info
    yield f"http://{node['node_ip_address']}:{node['metrics_export_port']}/metrics"
    ray.shutdown()


def _shown(address: str, name: str) -> dict[str, float]:
    """The samples of a metric by its label `le`."""
    lines = [line for line in httpx.get(address).text.splitlines() if line.startswith(f"{name}{{")]
    return {
        line.partition('le="')[2].partition('"')[0]: float(line.rpartition(" ")[2])
        for line in lines
    }


def test_a_histogram_is_counters_of_its_ranges(exported: str) -> None:
    exporter = Exporter()
    observe(0, 1.5)
    exporter.export(metrics.collected())
    observe(3)
    exporter.export(metrics.collected())
    wanted = {"1.0": 1.0, "2.0": 2.0, "4.0": 3.0, "+Inf": 3.0}
    end, seen = time.monotonic() + 60, {}
    while time.monotonic() < end and seen != wanted:
        time.sleep(1)
        seen = _shown(exported, "ray_vtprune_sizes_bucket_total")
    assert seen == wanted
    assert _shown(exported, "ray_vtprune_sizes_sum_total") == {"": 4.5}
    assert _shown(exported, "ray_vtprune_sizes_count_total") == {"": 3.0}
