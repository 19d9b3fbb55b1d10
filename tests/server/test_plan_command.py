"""`vtprune plan`: against loads that nothing was fitted to, and against arithmetic."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from vtprune_server.command.parser import EXAMPLES
from vtprune_server.command.plan.costs import MEASURED, Costs, read_costs
from vtprune_server.command.plan.fleet import Bound, fleet
from vtprune_server.command.plan.simulation import closed_load, open_load
from vtprune_server.command.plan.traffic import Layout, Traffic

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from plan_costs import errors, loads, text_loads  # noqa: E402

COSTS, _ = read_costs(MEASURED)
FREE = Costs(**{field.name: 0.0 for field in fields(Costs)})
"""Nothing costs anything."""
ALONE = replace(FREE, picture_pixels=1, tower_tokens=1, step_tokens=1000, kv_tokens=10**6)
STOCK = Traffic(images=1, visual_tokens=576, kept=576, prompt=27, answer=16, pixels=448 * 336)
PRUNED = replace(STOCK, kept=64)


def _plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vtprune_server.command", "plan", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


HELD_OUT = [load for load in loads() if load.is_held_out]


@pytest.mark.parametrize("load", HELD_OUT, ids=lambda load: load.name)
def test_what_was_measured_and_not_fitted_is_met_within_a_quarter(load) -> None:
    rate, first = errors(COSTS, load)
    assert abs(rate) < 0.16 and abs(first) < 0.25, "docs/scale.md says how far it is off"


def test_there_are_four_such_loads_and_the_others_are_met_too() -> None:
    fitted = [load for load in [*loads(), *text_loads()] if not load.is_held_out]
    assert (len(loads()) - 4, len(text_loads())) == (len(fitted) - 2, 2)
    assert max(abs(error) for load in fitted for error in errors(COSTS, load)) < 0.25


def test_one_request_alone_takes_the_sum_of_its_parts() -> None:
    costs = replace(ALONE, api_request=1, api_delay=2, api_image=4, api_token=8, step=16)
    costs = replace(costs, step_sequence=32, engine_request=64, engine_image=128, selection=256)
    costs = replace(costs, prefill_token=0.5, tower_launch=512, picture_pixels=STOCK.pixels)
    first = 1 + 2 + 4 + 8 + 16 + 32 + 64 + 128 + 256 + 0.5 * (27 + 64) + 512
    outcome = closed_load(costs, PRUNED, Layout(), clients=1, requests=1)
    assert outcome.first_tokens == [first]
    # A token that is sent while the next step runs delays nothing.
    assert 1 / outcome.requests_per_s == pytest.approx(first + 15 * (16 + 32))
    unpruned = closed_load(costs, STOCK, Layout(), clients=1, requests=1)
    assert unpruned.first_tokens == [first - 256 + 0.5 * 512]


def test_a_core_does_two_things_at_half_the_speed() -> None:
    """One client's text is read while another one's picture is prepared."""
    costs = replace(ALONE, api_image=4, picture_pixels=STOCK.pixels, api_delay=1, api_request=2)
    outcome = closed_load(costs, replace(PRUNED, answer=1), Layout(), clients=2, requests=2)
    # From 1 to 3 the first is read; to 7 the second is read while the first is prepared (2 of 4
    # done); to 9 the first is prepared, to 13 the second.
    assert outcome.first_tokens == [9, 13]
    two = closed_load(costs, replace(PRUNED, answer=1), Layout(2), clients=2, requests=2)
    assert two.first_tokens == [7, 7]


def test_prompts_beyond_a_step_go_on_in_the_next_one() -> None:
    costs = replace(ALONE, step=1, step_tokens=100)
    outcome = closed_load(costs, replace(STOCK, answer=1), Layout(), clients=2, requests=2)
    assert outcome.first_tokens == [7, 13], "603 tokens take six steps and 3 of the seventh"


def test_the_kv_cache_bounds_what_runs() -> None:
    costs = replace(ALONE, step=1, step_tokens=10_000, kv_tokens=700)
    outcome = closed_load(costs, STOCK, Layout(), clients=2, requests=2)
    assert outcome.first_tokens == [1, 17]


def test_an_open_load_above_capacity_waits_longer_and_longer() -> None:
    costs = replace(ALONE, api_request=0.1)
    below, above = (open_load(costs, PRUNED, Layout(), per_s, 400) for per_s in (5, 20))
    assert below.first_token(0.95) < 1 < 10 < above.first_token(0.95)
    assert below.api_busy == pytest.approx(0.5, abs=0.1)
    assert above.api_busy > 0.99


def test_a_fleet_is_the_smallest_that_does() -> None:
    bound = Bound(1.0, 0.95)
    found = fleet(COSTS, STOCK, 200, bound, apart=False)
    assert found is not None and found.outcome.first_token(0.95) <= 1
    fewer = open_load(COSTS, STOCK, Layout(8), 200 / (found.replicas - 1), 4000)
    assert fewer.first_token(0.95) > 1
    assert fleet(COSTS, STOCK, 200, Bound(0.001, 0.95), apart=False) is None
    bounded = fleet(COSTS, PRUNED, 200, bound, apart=False, most_of_one=60)
    assert bounded is not None and bounded.replicas == 4


def test_the_table_is_the_one_in_the_docs() -> None:
    done = _plan(*shlex.split(EXAMPLES["plan"])[2:])
    assert done.stdout in (ROOT / "docs/scale.md").read_text()
    (replicas,) = [line for line in done.stdout.splitlines() if line.startswith("replicas ")]
    stock, pruned = map(int, replicas.split()[1:])
    assert pruned < stock


def test_json_says_as_much_and_a_rate_of_0_is_stock() -> None:
    done = _plan("--requests", "20", "--rate", "0", "--images", "2", "--json")
    answer = json.loads(done.stdout)
    stock = answer["stock"]
    assert stock == answer["vtprune"]
    assert stock["visual_tokens"] == 1152
    assert stock["within"]["encoders"] == 0 < stock["apart"]["encoders"]
    assert stock["within"]["first_token_bound_s"] <= 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rate", "1"], "rate is 1; allowed: from 0 to below 1"),
        (["--percentile", "100"], "percentile is 100; allowed: below 100"),
        (["--size", "448"], "'448' is not a size; write it as 448x336"),
        (["--ttft", "0"], "0 is not above 0"),
        (["--costs", __file__], "allowed: a JSON file with numbers from 0 for api_delay, "),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments: list[str], sentence: str) -> None:
    done = _plan("--requests", "10", *arguments)
    assert done.returncode in (1, 2) and sentence in done.stderr
    assert "Traceback" not in done.stderr
