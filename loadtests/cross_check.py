"""Check that our client measures what `vllm bench serve` measures, on the same server in turn.

    PYTHONPATH=environment .venv/bin/python loadtests/cross_check.py

Both send questions about one new picture each, made by `scenarios/_media.py`, from equally many
users. locust asks for some seconds; `vllm bench serve` sends as many requests in each of its rounds
as locust in its first. Every second round begins with the other client.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from _load import Load, answers
from _summary import summary
from vllm_process import MODELS, VllmProcess, environment

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))

from _media import Media, image_part, text_part

FIGURES = {
    "requests_per_s": ("requests/s", "request_throughput"),
    "output_tokens_per_s": ("output tokens/s", "output_throughput"),
    "ttft_p50_s": ("TTFT p50, s", "median_ttft_ms"),
    "ttft_p95_s": ("TTFT p95, s", "p95_ttft_ms"),
    "total_p50_s": ("answer p50, s", "median_e2el_ms"),
    "total_p95_s": ("answer p95, s", "p95_e2el_ms"),
}
"""For each of our figures: its title, and its name in the JSON of `vllm bench serve`."""

Figures = dict[str, float]


def main() -> None:
    """Print both clients' figures side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--output-tokens", type=int, default=16)
    parser.add_argument("--checkpoint", default="bench-small", help="a folder of .cache/models")
    parser.add_argument("--dtype", default="float32", help="bfloat16 needs AVX-512")
    parser.add_argument("--url", help="ask this server instead of starting one")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = arguments.url or stack.enter_context(_server(folder, arguments)).url
        answers(Load("single_image", users=2, seconds=3, seed=-1), url)  # warms up
        _print(list(_rounds(url, folder, arguments)))


def _server(folder: Path, arguments: argparse.Namespace) -> VllmProcess:
    flags = ["--dtype", arguments.dtype, "--plugin", "vtprune"]
    return VllmProcess(folder / "server.log", arguments.checkpoint, *flags)


def _rounds(url: str, folder: Path, arguments: argparse.Namespace) -> Iterator[list[Figures]]:
    """Yield our figures and theirs, round by round."""
    requests = 0

    def ours(number: int) -> Figures:
        load = Load(
            "single_image",
            users=arguments.users,
            seconds=arguments.seconds,
            seed=number,
            output_tokens=arguments.output_tokens,
        )
        return summary(answers(load, url), slo_ttft=1)

    for number in range(arguments.rounds):
        if number % 2 == 0:
            mine = ours(number)
            requests = requests or int(mine["requests"])
            theirs = _bench(url, folder, number, requests, arguments)
        else:
            theirs = _bench(url, folder, number, requests, arguments)
            mine = ours(number)
        yield [mine, theirs]


def _bench(
    url: str, folder: Path, seed: int, requests: int, arguments: argparse.Namespace
) -> Figures:
    """Run `vllm bench serve` on new pictures; return its figures under our names."""
    pictures, result = folder / f"{seed}.jsonl", folder / f"{seed}.json"
    _write_questions(pictures, seed, requests)
    command = [*_command(url, requests, arguments), "--dataset-path", pictures]
    command += ["--result-dir", folder, "--result-filename", result.name]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"vllm bench serve failed:\n{done.stdout}{done.stderr[-3000:]}")
    figures = json.loads(result.read_text())
    if figures["completed"] != requests:
        raise RuntimeError(f"{requests} requests, {figures['completed']} answered")
    return {
        name: figures[theirs] / (1000 if theirs.endswith("_ms") else 1)
        for name, (_, theirs) in FIGURES.items()
    }


def _write_questions(file: Path, seed: int, count: int) -> None:
    """Write the dataset of `vllm bench serve`: new pictures with a question each."""
    media = Media(f"bench/{seed}")
    with file.open("w") as lines:
        for _ in range(count):
            content = [image_part(media.image()), text_part(media.question())]
            lines.write(json.dumps({"content": content}) + "\n")


def _command(url: str, requests: int, arguments: argparse.Namespace) -> list[str | Path]:
    """Return the command line that sends them as our own client does."""
    flags: dict[str, Any] = {
        "--backend": "openai-chat",
        "--endpoint": "/v1/chat/completions",
        "--base-url": url,
        "--model": "demo",
        "--tokenizer": MODELS / arguments.checkpoint,
        "--dataset-name": "custom_image",
        "--custom-output-len": arguments.output_tokens,
        "--num-prompts": requests,
        "--max-concurrency": arguments.users,
        "--temperature": 0,
        "--percentile-metrics": "ttft,e2el",
        "--metric-percentiles": "95",
    }
    vllm = [Path(sys.executable).with_name("vllm"), "bench", "serve", "--ignore-eos"]
    return [*vllm, "--save-result", *(str(part) for flag in flags.items() for part in flag)]


def _print(rounds: list[list[Figures]]) -> None:
    """Print medians over the rounds; the spread of a client's own rounds is the noise."""
    print("\n| figure | loadtests | its rounds | vllm bench serve | its rounds | ratio |")
    print("|---|---|---|---|---|---|")
    for name, (title, _) in FIGURES.items():
        cells, medians = [], []
        for client in (0, 1):
            values = [pair[client][name] for pair in rounds]
            medians.append(statistics.median(values))
            cells.append(f"{medians[-1]:.3f} | {min(values):.3f}-{max(values):.3f}")
        print(f"| {title} | {cells[0]} | {cells[1]} | {medians[0] / medians[1]:.2f} |")


if __name__ == "__main__":
    main()
