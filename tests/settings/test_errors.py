"""One fault, rendered at each edge with the names that its reader uses."""

from __future__ import annotations

import pickle

import pytest

from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import ConfigError, SettingError

FLAGS = {"rate": "--prune-rate", "tokens": "--prune-tokens", "limits": "--prune-limits"}


@pytest.mark.parametrize(
    ("error", "at_start", "at_request"),
    [
        (
            SettingError("rate", "0", "rates from 0.5 to 0.9", by="limits"),
            "--prune-rate is 0; allowed: rates from 0.5 to 0.9, by --prune-limits",
            "rate is 0; allowed here: rates from 0.5 to 0.9",
        ),
        (
            SettingError("rate", "0.5", "one of the two", beside=("tokens", "64")),
            "--prune-rate is 0.5 and --prune-tokens is 64; allowed: one of the two",
            "rate is 0.5 and tokens is 64; allowed: one of the two",
        ),
        (
            SettingError("limits.rate", "1", "min_rate", " but there is no such key"),
            "--prune-limits.rate is 1 but there is no such key; allowed: min_rate",
            "limits.rate is 1 but there is no such key; allowed: min_rate",
        ),
        (
            SettingError("tokens", "'rate '", None, "; it should be a valid integer"),
            "--prune-tokens is 'rate '; it should be a valid integer",
            "tokens is 'rate '; it should be a valid integer",
        ),
        (
            ConfigError("rate of a package is broken, by limits"),
            "rate of a package is broken, by limits",
            "rate of a package is broken, by limits",
        ),
    ],
    ids=str,
)
def test_each_edge_has_its_own_names(error, at_start, at_request) -> None:
    assert error.at_start(FLAGS) == at_start
    assert error.at_request() == at_request
    assert str(error) == error.at_start()


@pytest.mark.parametrize("settings", ["M" * 1_000_000, {"method": "M" * 1_000_000}, {"M" * 200: 1}])
def test_what_is_echoed_is_cut(settings) -> None:
    with pytest.raises(ConfigError) as caught:
        PruneConfig.parse(settings)
    told = caught.value.at_request()
    assert "M" * 99 in told
    assert "M" * 101 not in told


def test_a_fault_comes_whole_from_another_process() -> None:
    error = SettingError("rate", "0", "rates from 0.5", by="limits")
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)
