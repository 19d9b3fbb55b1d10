"""Fit the costs that `vtprune plan` uses to measured loads, and print the simulation's errors.

    python benchmarks/plan_costs.py                         fit and write; minutes of one core
    python benchmarks/plan_costs.py --check                 only print errors of stored costs

The loads are closed: each client sends its next request once it has an answer. Those of `HELD_OUT`
are never fitted; `tests/server/test_plan_command.py` compares the simulation with them.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from vtprune_server.command.plan.costs import MEASURED, Costs, read_costs
from vtprune_server.command.plan.simulation import closed_load
from vtprune_server.command.plan.traffic import Layout, Traffic

ROWS = Path(__file__).parent / "results" / "h200-2026-11-27" / "serve.jsonl"
PIXELS, PROMPT, ANSWER = 448 * 336, 27, 16
HELD_OUT = {(1, 32), (4, 48)}
"""API servers and clients: one load within the range of the fitted ones, one beyond it."""

FITTED = (
    *("api_request", "api_delay", "api_image", "api_token", "step", "step_sequence"),
    *("prefill_token", "engine_request", "engine_image"),
)
"""The other costs are measured one by one: `results/h200-2026-11-27/README.md`."""

TEXT = [(32, 148.0), (64, 171.0)]
"""Clients, and requests per second, with prompts of 91 tokens and no picture, one API server."""

SMALLEST_STEP = 0.03
SECONDS = 240.0


class Load(NamedTuple):
    """A measured load."""

    name: str
    traffic: Traffic
    layout: Layout
    clients: int
    requests: int
    requests_per_s: float
    first_token_s: float | None
    """The median."""

    @property
    def is_held_out(self) -> bool:
        """Whether nothing is fitted to it."""
        return (
            self.layout.api_servers,
            self.clients,
        ) in HELD_OUT and self.first_token_s is not None


def loads(family: str = "1.5") -> list[Load]:
    """The measured loads of a model, `1.5` or `NeXT`."""
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()]
    tokens = {"1.5": 576, "NeXT": 1368}[family]
    return [
        Load(
            f"{row['contender']}, {row['concurrency']} clients, API servers: {_api_servers(row)}",
            Traffic(1, tokens, row["prompt_tokens"] - PROMPT, PROMPT, ANSWER, PIXELS),
            Layout(_api_servers(row)),
            row["concurrency"],
            row["requests"],
            row["requests_per_s"],
            row["ttft_p50_s"],
        )
        for row in rows
        if family in row["plan"]
    ]


def _api_servers(row: dict[str, str]) -> int:
    return 4 if "4 API" in row["plan"] else 1


def text_loads() -> list[Load]:
    """The measured loads without a picture."""
    traffic = Traffic(0, 0, 0, 91, ANSWER, 0)
    return [
        Load(f"text, {clients} clients", traffic, Layout(), clients, 9 * clients, rate, None)
        for clients, rate in TEXT
    ]


def errors(costs: Costs, load: Load) -> tuple[float, float]:
    """The relative errors of the simulated requests per second and median first token."""
    found = closed_load(costs, load.traffic, load.layout, load.clients, load.requests)
    first = found.first_token(0.5) / load.first_token_s - 1 if load.first_token_s else 0.0
    return found.requests_per_s / load.requests_per_s - 1, first


def loss(costs: Costs, fitted: Sequence[Load]) -> float:
    """The sum of both errors' squared logarithms; first tokens are noisier and count half."""
    both = [errors(costs, load) for load in fitted]
    return sum(math.log1p(rate) ** 2 + 0.5 * math.log1p(first) ** 2 for rate, first in both)


def fit(costs: Costs, fitted: Sequence[Load]) -> Costs:
    """Coordinate descent: try each cost larger and smaller by a step, which is halved when none of
    them improves the loss."""
    best, step, begin = loss(costs, fitted), 0.4, time.process_time()
    while step > SMALLEST_STEP and time.process_time() - begin < SECONDS:
        before = best
        for name in FITTED:
            for factor in (math.exp(step), math.exp(-step)):
                tried = replace(costs, **{name: getattr(costs, name) * factor})
                if (value := loss(tried, fitted)) < best * 0.995:
                    costs, best = tried, value
                    break
        step = step if best < before else step / 2
        print(f"step {step:.3f}, loss {best:.4f}", flush=True)
    return replace(costs, **{name: float(f"{getattr(costs, name):.3g}") for name in FITTED})


def compare(costs: Costs) -> None:
    """Print every load's errors, including those of LLaVA-NeXT, to which nothing is fitted."""
    for load in [*loads(), *text_loads(), *loads("NeXT")]:
        rate, first = errors(costs, load)
        kind = "held out" if load.is_held_out or load.traffic.visual_tokens == 1368 else "fitted"
        print(f"{kind:9} {load.name:46} requests/s {rate:+.0%}, first token {first:+.0%}")


def main() -> None:
    """Fit, write, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="do not fit")
    arguments = parser.parse_args()
    costs, said = read_costs(MEASURED)
    if not arguments.check:
        fitted = [load for load in [*loads(), *text_loads()] if not load.is_held_out]
        costs = fit(costs, fitted)
        MEASURED.write_text(json.dumps({**said, "costs": asdict(costs)}, indent=1) + "\n")
    compare(costs)


if __name__ == "__main__":
    main()
