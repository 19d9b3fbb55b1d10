"""The flags of `vtprune plan`, and its output: a table, or JSON."""

from __future__ import annotations

import json
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from vtprune_server.command.ask import CommandError
from vtprune_server.command.plan.costs import MEASURED, read_costs
from vtprune_server.command.plan.fleet import Bound, Fleet, fleet
from vtprune_server.command.plan.traffic import Traffic

__all__ = ["add_plan", "plan"]


def add_plan(parser: ArgumentParser) -> None:
    """Add the flags."""
    add = parser.add_argument
    add("--requests", type=_positive(float), required=True, metavar="R", help="per second, in all")
    add("--images", type=_positive(int), default=1, help="per request (%(default)s)")
    add("--size", type=_size, default=(448, 336), metavar="WxH", help="of an image (448x336)")
    add(
        "--visual-tokens", type=_positive(int), default=576,
        help="of an image, unpruned; `vtprune estimate` tells them (%(default)s)",
    )  # fmt: skip
    pruning = parser.add_mutually_exclusive_group()
    pruning.add_argument("--rate", type=Fraction, default=Fraction(8, 9), help="removed (8/9)")
    pruning.add_argument("--tokens", type=_positive(int), help="kept per image, instead of a rate")
    add("--prompt", type=_positive(int), default=27, help="tokens of text (%(default)s)")
    add("--answer", type=_positive(int), default=128, help="tokens of an answer (%(default)s)")
    add("--ttft", type=_positive(float), default=2.0, help="bound in seconds (%(default)s)")
    add("--percentile", type=_positive(float), default=95.0, help="that --ttft is of (%(default)s)")
    add("--costs", type=Path, default=MEASURED, help="a file of another machine's or model's")
    add("--json", action="store_true", help="print all numbers as JSON")


def plan(arguments: Namespace) -> str:
    """Return the machines that stock vLLM and vtprune need, as a table or as JSON.

    Raises:
        CommandError: a flag has a value that is not allowed, or the file of costs is unusable.
    """
    costs, said = read_costs(arguments.costs)
    stock = _traffic(arguments)
    pruned = replace(stock, kept=_kept(arguments))
    most = said["most_measured"]
    bound = Bound(arguments.ttft, _share(arguments.percentile))
    fleets = {
        name: {
            place: fleet(costs, traffic, arguments.requests, bound, place == "apart", most)
            for place in ("within", "apart")
        }
        for name, traffic in (("stock", stock), ("vtprune", pruned))
    }
    told = {name: _told(each, bound) for name, each in fleets.items()}
    told["stock"]["visual_tokens"] = stock.images * stock.kept
    told["vtprune"]["visual_tokens"] = pruned.images * pruned.kept
    answer = {**told, "costs": said["about"]}
    return (json.dumps(answer, indent=1) if arguments.json else _table(answer, arguments)) + "\n"


def _traffic(arguments: Namespace) -> Traffic:
    width, height = arguments.size
    tokens = arguments.visual_tokens
    return Traffic(
        arguments.images, tokens, tokens, arguments.prompt, arguments.answer, width * height
    )


def _kept(arguments: Namespace) -> int:
    """The tokens that a server keeps of an image."""
    from vllm_pruner.methods.budget import Budget, keep_count

    if arguments.tokens is not None:
        return keep_count(arguments.visual_tokens, Budget(tokens=arguments.tokens))
    if not 0 <= arguments.rate < 1:
        raise CommandError(f"rate is {arguments.rate}; allowed: from 0 to below 1")
    return keep_count(arguments.visual_tokens, Budget(rate=float(arguments.rate)))


def _share(percentile: float) -> float:
    if percentile >= 100:
        raise CommandError(f"percentile is {percentile:g}; allowed: below 100")
    return percentile / 100


def _told(fleets: dict[str, Fleet | None], bound: Bound) -> dict[str, Any]:
    """The JSON of one kind of server, by where the tower runs; None if no number keeps to the
    bound."""
    told: dict[str, Any] = {}
    for place, found in fleets.items():
        told[place] = found and {
            "replicas": found.replicas,
            "encoders": found.encoders,
            "api_servers_per_replica": found.api_servers,
            "requests_per_s_per_replica": round(found.per_s, 2),
            "first_token_p50_s": round(found.outcome.first_token(0.5), 3),
            "first_token_bound_s": round(found.outcome.first_token(bound.share), 3),
            "api_servers_busy": round(found.outcome.api_busy, 2),
        }
    return told


def _table(answer: dict[str, Any], arguments: Namespace) -> str:
    """The table for a terminal: a column for stock vLLM and one for vtprune."""
    bound = f"first token p{arguments.percentile:g}"
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("replicas", lambda each: str(each["replicas"])),
        ("requests/s of each", lambda each: f"{each['requests_per_s_per_replica']:.1f}"),
        ("API servers of each", lambda each: str(each["api_servers_per_replica"])),
        ("first token p50", lambda each: f"{each['first_token_p50_s']:.2f} s"),
        (bound, lambda each: f"{each['first_token_bound_s']:.2f} s"),
        ("API servers busy", lambda each: f"{each['api_servers_busy']:.0%}"),
    ]
    kinds = [answer["stock"], answer["vtprune"]]
    lines = [_line("", ["stock", "vtprune"])]
    lines += [_line("visual tokens a request", [str(each["visual_tokens"]) for each in kinds])]
    for name, show in rows:
        within = [each["within"] for each in kinds]
        lines.append(_line(name, [show(each) if each else "none will do" for each in within]))
    apart = [each["apart"] for each in kinds]
    cards = [f"{a['replicas']} + {a['encoders']}" if a else "none will do" for a in apart]
    lines.append(_line("tower apart: replicas + encoders", cards))
    return "\n".join([*lines, f"A simulation, with costs of {answer['costs']}."])


def _line(name: str, cells: list[str]) -> str:
    return f"{name:34}" + "".join(f"{cell:>14}" for cell in cells)


def _positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = kind(text)
        if not value > 0:
            raise ArgumentTypeError(f"{text} is not above 0")
        return value

    return read


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) * int(height)):
        raise ArgumentTypeError(f"{text!r} is not a size; write it as 448x336")
    return int(width), int(height)
