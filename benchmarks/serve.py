"""What pruning gains in a real server: stock vLLM, vtprune, and the limit that pruning can reach.

    make bench-serve
    make bench-serve ARGS="--model bench-qwen --keep 1/2 1/4"

The contenders take turns at equally many requests within every round, so that a noisy machine
disturbs all of them alike:

- `stock`: vLLM without the plugin, one distinct photograph per request;
- `vtprune`: the same photographs, 64 of 576 visual tokens kept; with several `--keep`, one
  contender each, `vtprune 1/2` and so on;
- `text-only`: stock vLLM, prompts without image, as long as the shortest pruned ones.

`text-only` has no image to decode, resize, send and encode, so a pruned server cannot reach it. The
difference is measured inside the servers of the same run: milliseconds per image in the tower and
in selection (`worker_timer.py`), and in the processor.

`--dry-run` asks every contender once, about a small photograph, and records nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

from _chat import closed_load, image_body, photographs, text_body
from _machine import describe
from _serving import Contender, compare, milliseconds_inside, print_table, search_path, words_for
from vllm_process import MODELS, VllmProcess

RESULTS = Path(__file__).parent / "results" / "serve-cpu.jsonl"

SIZES = {"bench-qwen": (896, 672)}
"""Width and height of the photographs; in a Qwen-VL these have 768 tokens."""


def main() -> None:
    """Run, print the tables and append them to the results."""
    arguments = _arguments()
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        budgets = {"stock": None, **_names(arguments.keep)}
        servers = {
            name: _server(stack, logs, name, keep, arguments) for name, keep in budgets.items()
        }
        rows = [row for level in arguments.concurrency for row in _level(level, servers, arguments)]
        costs = {
            name: _costs(server, arguments) for name, server in servers.items() if name != "stock"
        }
    print_table(rows)
    for name, inside in costs.items():
        which = "" if len(costs) == 1 else f" {name}"
        print(f"\nPer image in the pruned server{which}: {json.dumps(inside)}")
    if arguments.dry_run:
        print("\nA dry run: not a measurement, nothing recorded.")
    else:
        _record(arguments, rows, costs)


def _record(
    arguments: argparse.Namespace, rows: list[dict[str, Any]], costs: dict[str, dict[str, float]]
) -> None:
    """Append the run. With a single budget, `keep` and `costs` are not nested."""
    settings = {name: value for name, value in vars(arguments).items() if name != "dry_run"}
    found: dict[str, Any] = {"rows": rows, "costs": costs}
    if len(arguments.keep) == 1:
        (settings["keep"],), (found["costs"],) = arguments.keep, costs.values()
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps({**describe(), **settings, **found}) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="bench", help="a folder of .cache/models")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--requests", type=int, default=4, help="per client, contender and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--keep", type=_keep, nargs="+", default=[64], help="visual tokens, or shares such as 1/4"
    )
    parser.add_argument("--dtype", default="float32", help="bfloat16 needs AVX-512")
    parser.add_argument("--output-tokens", type=int, default=16)
    parser.add_argument("--timed", type=int, default=32, help="images timed inside a pruned server")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="of the photographs"
    )
    parser.add_argument(
        "--step-tokens", type=int, help="vLLM's --max-num-batched-tokens, for all contenders"
    )
    parser.add_argument("--dry-run", action="store_true", help="no measurement, nothing recorded")
    arguments = parser.parse_args()
    if arguments.dry_run:
        once = {"concurrency": [1], "requests": 1, "rounds": 1, "output_tokens": 2, "timed": 1}
        vars(arguments).update(once, size=[112, 112])
    arguments.size = arguments.size or SIZES.get(arguments.model, (448, 336))
    return arguments


def _keep(text: str) -> int | str:
    """Parse a number of visual tokens; a share of them is returned as written."""
    if text.isdecimal() and int(text):
        return int(text)
    try:
        share = Fraction(text)
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text} is neither tokens, as 64, nor a share, as 1/4")
    return text


def _names(budgets: list[int | str]) -> dict[str, int | str]:
    """Return the budgets by contender; if there is only one, it is called `vtprune`."""
    if len(budgets) == 1:
        return {"vtprune": budgets[0]}
    return {f"vtprune {keep}": keep for keep in budgets}


def _server(
    stack: ExitStack, logs: Path, name: str, keep: int | str | None, arguments: argparse.Namespace
) -> VllmProcess:
    print(f"starting {name} ...", flush=True)
    flags = ["--dtype", arguments.dtype, "--max-num-seqs", "64"]
    if arguments.step_tokens:
        flags += ["--max-num-batched-tokens", str(arguments.step_tokens)]
    if arguments.dry_run:
        flags += ["--enforce-eager"]  # compiling would take longer than all requests
    if keep is not None:
        flags += ["--plugin", "vtprune", *_budget(keep)]
        flags += ["--worker-extension-cls", "worker_timer.WorkerTimer"]
    log = logs / f"{name.replace(' ', '-').replace('/', '-')}.log"
    return stack.enter_context(VllmProcess(log, arguments.model, *flags, PYTHONPATH=search_path()))


def _budget(keep: int | str) -> list[str]:
    if isinstance(keep, int):
        return ["--prune-tokens", str(keep)]
    return ["--prune-rate", str(float(1 - Fraction(keep)))]


def _level(
    concurrency: int, servers: dict[str, VllmProcess], arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Yield one row per contender, at one number of clients."""
    stock, choose = servers["stock"], random.Random(concurrency)
    views = photographs(*arguments.size, seed=concurrency)
    probe = [image_body(next(views), arguments.output_tokens)]
    pruned = {name: server for name, server in servers.items() if name != "stock"}
    shortest = min(closed_load(each.url, probe, 1)[0][0].prompt_tokens for each in pruned.values())
    words = words_for(stock.url, shortest, arguments.output_tokens, choose)

    def images(count: int) -> list[dict[str, Any]]:
        return [image_body(next(views), arguments.output_tokens) for _ in range(count)]

    def texts(count: int) -> list[dict[str, Any]]:
        return [text_body(words, arguments.output_tokens, choose) for _ in range(count)]

    contenders = [
        *(Contender(name, server, images) for name, server in servers.items()),
        Contender("text-only", stock, texts),
    ]
    return compare(contenders, concurrency, arguments.requests, arguments.rounds)


def _costs(server: VllmProcess, arguments: argparse.Namespace) -> dict[str, float]:
    """Return milliseconds per image inside a pruned server, at eight clients."""
    from transformers import AutoProcessor  # slow to import, and only needed here

    views = photographs(*arguments.size, seed=1000)
    bodies = [image_body(next(views), arguments.output_tokens) for _ in range(arguments.timed)]
    costs = milliseconds_inside(server, bodies, 8)
    processor = AutoProcessor.from_pretrained(MODELS / arguments.model).image_processor
    costs["decode_and_resize_ms"] = 1000 * _processor_seconds(processor, views)
    return {name: round(value, 2) for name, value in costs.items()}


def _processor_seconds(processor: Any, views: Iterator[str]) -> float:
    import base64
    import io
    import time

    from PIL import Image

    seconds = []
    for _ in range(16):
        file = base64.b64decode(next(views).partition(",")[2])
        start = time.perf_counter()
        processor(images=Image.open(io.BytesIO(file)).convert("RGB"), return_tensors="pt")
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
