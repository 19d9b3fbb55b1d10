"""Compare stock vLLM with vtprune under every scenario; write one HTML report and its JSON.

    make loadtest                      about a quarter of an hour on two cores
    make loadtest ARGS=--quick         about three minutes

Both servers are started here, with the same model and the same flags except the plugin's, and take
turns at every load with the same seeds, so that a noisy machine disturbs both alike. `--stock-url`
and `--vtprune-url` measure servers that already run, for instance on a GPU each.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from _load import Load, answers
from _machine import describe
from _summary import percentile, summary
from report import render
from vllm_process import VllmProcess

CONTENDERS = ("stock", "vtprune")
RESULTS = Path(__file__).parent / "results"
OTHERS = ("several_images", "multi_turn", "many_questions", "mixed_traffic")
OPEN_ARRIVALS = 10
"""Fewest visits expected in an open load; a slow server's load lasts longer to reach them."""

SLO_FACTOR = 2.0
"""A good answer begins within this many times the unloaded stock server's median."""


def main() -> None:
    """Measure both servers and write the report."""
    arguments = _arguments()
    with ExitStack() as stack:
        urls = _servers(stack, arguments)
        result = Comparison(urls, arguments).run()
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "report.json").write_text(json.dumps(result, indent=1) + "\n")
    (arguments.output / "report.html").write_text(render(result))
    print(f"report: {arguments.output / 'report.html'}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few loads, for CI")
    parser.add_argument("--users", type=int, nargs="+", help="levels of the sweep")
    parser.add_argument("--others", nargs="*", choices=OTHERS, help="scenarios besides the sweep")
    parser.add_argument("--others-users", type=int, help="their users, besides one alone")
    parser.add_argument(
        "--rates", type=float, nargs="*", help="open loads, relative to stock's highest requests/s"
    )
    parser.add_argument("--seconds", type=float, help="per load, until the last request is sent")
    parser.add_argument("--keep", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=16)
    parser.add_argument("--pictures", choices=["photos", "synthetic"], default="photos")
    parser.add_argument("--checkpoint", default="bench-small", help="a folder of .cache/models")
    parser.add_argument("--dtype", default="float32", help="bfloat16 needs AVX-512")
    parser.add_argument("--model", default="demo", help="model name in the requests")
    parser.add_argument("--stock-url", help="measure this server instead of starting one")
    parser.add_argument("--vtprune-url", help="the same for vtprune")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    for name, value in (QUICK if arguments.quick else FULL).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return arguments


FULL = {
    "users": [1, 2, 4, 8, 16, 32],
    "others": list(OTHERS),
    "others_users": 8,
    "rates": [0.5, 1.0, 2.0, 4.0],
    "seconds": 10.0,
}
QUICK = {
    "users": [1, 4],
    "others": ["multi_turn"],
    "others_users": 4,
    "rates": [1.0, 2.0],
    "seconds": 5.0,
}


def _servers(stack: ExitStack, arguments: argparse.Namespace) -> dict[str, str]:
    """Return the servers' addresses; a server without a given one is started."""
    urls, logs = {}, Path(stack.enter_context(tempfile.TemporaryDirectory()))
    for name in CONTENDERS:
        if given := getattr(arguments, f"{name}_url"):
            urls[name] = given
            continue
        flags = ["--dtype", arguments.dtype, "--max-num-seqs", "64"]
        env = {"VLLM_PLUGINS": "none"}
        if name == "vtprune":
            flags += ["--plugin", "vtprune", "--prune-tokens", str(arguments.keep)]
            env = {}
        print(f"starting {name} ...", flush=True)
        server = VllmProcess(logs / f"{name}.log", arguments.checkpoint, *flags, **env)
        urls[name] = stack.enter_context(server).url
    return urls


class Comparison:
    """All loads on both servers, in turn."""

    def __init__(self, urls: dict[str, str], arguments: argparse.Namespace) -> None:
        self._urls, self._arguments = urls, arguments
        self._rows: list[dict[str, Any]] = []
        self._slo: dict[str, float] = {}
        self._seed = 0

    def run(self) -> dict[str, Any]:
        """Return the complete result, as written to JSON."""
        begun = time.monotonic()
        for name in CONTENDERS:  # the first requests compile and allocate
            answers(self._load("single_image", users=2, seconds=2), self._urls[name])
        for load in self._loads():
            self._put(load)
        settings = vars(self._arguments) | {"output": None}
        return {
            "machine": describe(),
            "settings": settings,
            "slo_ttft_s": self._slo,
            "minutes": (time.monotonic() - begun) / 60,
            "rows": self._rows,
        }

    def _loads(self) -> Iterator[Load]:
        """Yield the loads; a scenario begins with one user, whose stock run sets the objective."""
        for users in sorted({1, *self._arguments.users}):
            yield self._load("single_image", users=users)
        highest = max(row["requests_per_s"] for row in self._rows if row["contender"] == "stock")
        for part in self._arguments.rates:
            rate = part * highest
            seconds = max(self._arguments.seconds, OPEN_ARRIVALS / rate)
            yield self._load("single_image", arrivals=rate, seconds=seconds)
        for scenario in self._arguments.others:
            for users in sorted({1, self._arguments.others_users}):
                yield self._load(scenario, users=users)

    def _load(self, scenario: str, **more: Any) -> Load:
        """Return a load with its own seed, so that it does not find earlier pictures cached."""
        self._seed += 1
        fields = {name: getattr(self._arguments, name) for name in ("seconds", "output_tokens")}
        fields |= {name: getattr(self._arguments, name) for name in ("pictures", "model")}
        return Load(scenario, seed=self._seed, **{**fields, **more})

    def _put(self, load: Load) -> None:
        for name in CONTENDERS:
            answered = answers(load, self._urls[name])
            if load.scenario not in self._slo:
                first = [answer["ttft"] for answer in answered if "ttft" in answer]
                median = percentile(first, 50)
                if median is None:
                    raise RuntimeError(f"{load.scenario}: stock answered nothing: {answered[:2]}")
                self._slo[load.scenario] = SLO_FACTOR * median
            row = {"scenario": load.scenario, "load": load.kind, "level": load.level}
            window = load.run_time if load.arrivals else 0
            row |= {"contender": name, **summary(answered, self._slo[load.scenario], window)}
            self._rows.append(row)
            print(_line(row), flush=True)


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['scenario']:15} {row['load']:6} {row['level']:6.2f} {row['contender']:8}"
        f"{row['requests']:5} requests {row['failed']:3} failed {row['requests_per_s']:7.2f}/s"
        f"  TTFT p50 {row['ttft_p50_s'] or 0:7.3f} s  p95 {row['ttft_p95_s'] or 0:7.3f} s"
        f"  good {row['goodput_per_s']:6.2f}/s"
    )


if __name__ == "__main__":
    main()
