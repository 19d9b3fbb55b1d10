"""What the host launches for pictures: `embed_multimodal` beside stock vLLM's, counted.

    make bench-launches                                    all models; a minute
    make bench-launches ARGS="--models demo-next --operators"

Of few pictures the host's launches cost a card more than the work itself. How many there are can be
counted on a CPU (`launched`): the same model, by vLLM's loader, embeds the same pictures by its own
method and by stock vLLM's, new pictures and ones that are in the feature cache, of one size and of
different sizes. Sizes have been seen before, as in a server after a while; of a new one the host
makes tables, which look like launches here. Time is not measured.

Rows are appended to benchmarks/results/launches.jsonl, with counts by stage. Selection and
the tower are columns of their own: both can be CUDA graphs.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from _machine import describe
from launched import KINDS, Launched, stages_of
from pruned_model import picture_batch, pruned_model

from vllm_pruner.plan import FIELDS
from vllm_pruner.worker.model import PrunedModel

RESULTS = Path(__file__).parent / "results" / "launches.jsonl"
MODELS = ("demo", "demo-next", "demo-qwen2.5", "demo-qwen3")
SIZES = [
    *((336, 448), (448, 336), (300, 500), (500, 300), (224, 448), (448, 224)),
    *((600, 300), (300, 600)),
]
"""Heights and widths: as many layouts in Qwen-VL, and six in the small LLaVA-NeXT."""

KINDS_OF_BATCH = ("of one size", "of all sizes")

GRAPHED = ("tower", "probe", "tower's edge", "selection")
"""Stages that are CUDA graphs, or may be."""

HEADER = (
    "| model | pictures | contender | launches | views | from host | reads | selection | tower |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Count, print the table and append it to the results."""
    arguments = _arguments()
    print(HEADER)
    rows = []
    for name in arguments.models:
        for row in _rows(name, arguments.images):
            rows.append(row)
            operators = row.pop("operators")
            print(_line(row), flush=True)
            if arguments.operators:
                print("\n".join(operators))
    if not arguments.dry_run:
        with RESULTS.open("a") as file:
            file.write(json.dumps({**describe(), "rows": rows}) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS, help="folders of .cache/models")
    parser.add_argument("--images", nargs="+", type=int, default=[1, 4, 8])
    parser.add_argument("--operators", action="store_true", help="print them by stage")
    parser.add_argument("--dry-run", action="store_true", help="record nothing")
    return parser.parse_args()


def _rows(name: str, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield a row for each batch and contender of a model, with the server's default settings."""
    with pruned_model(name, {}, dtype="float32", max_num_batched_tokens=9216) as (config, model):
        for number in numbers:
            for kind in KINDS_OF_BATCH[: min(number, 2)]:
                sizes = SIZES[:number] if kind == KINDS_OF_BATCH[1] else SIZES[:1] * number
                _embed(model, picture_batch(config, sizes, (0, number, len(kind)), {}))
                fields = picture_batch(config, sizes, (1, number, len(kind)), {})
                for contender, launched in _contenders(model, fields).items():
                    yield {
                        "model": name,
                        "pictures": f"{number} {kind}" if number > 1 else "1",
                        "contender": contender,
                        "stages": _by_stage(launched.counts),
                        "operators": [f"{n} {each}" for each, n in sorted(launched.counts.items())],
                    }


def _contenders(model: Any, fields: dict[str, Any]) -> dict[str, Launched]:
    """Embed a batch that is new, then known, then by the method that vtprune's replaces."""
    found = {name: _embed(model, fields) for name in ("new", "known")}
    plain = {name: value for name, value in fields.items() if name not in FIELDS}
    found["stock"] = _embed(super(PrunedModel, model), model._normalized(plain), model)
    return found


@torch.inference_mode()
def _embed(embedding: Any, fields: dict[str, Any], model: Any = None) -> Launched:
    with Launched(stages_of(model or embedding)) as launched:
        embedding.embed_multimodal(**fields)
    return launched


def _by_stage(counts: Counter[tuple[str, str, str]]) -> dict[str, dict[str, int]]:
    stages: dict[str, Counter[str]] = defaultdict(Counter)
    for (stage, kind, _), number in counts.items():
        stages[stage][kind] += number
    return dict(stages)


def _line(row: dict[str, Any]) -> str:
    """Return a row of the table: each kind outside of what may be graphs, and what these launch."""
    stages = row["stages"]

    def total(names: Sequence[str], kind: str) -> int:
        return sum(stages.get(name, {}).get(kind, 0) for name in names)

    outside = [name for name in stages if name not in GRAPHED]
    cells = [
        *(row[name] for name in ("model", "pictures", "contender")),
        *(total(outside, kind) for kind in KINDS),
        total(["selection"], "launch"),
        total([name for name in GRAPHED if name != "selection"], "launch"),
    ]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
