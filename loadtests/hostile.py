"""Attack a pruned server with everything a stranger can send: nothing breaks, nobody else notices.

    make hostile                       every stage, about twenty minutes on two cores
    make hostile ARGS="--quick"        the same with few requests

pictures    unusual, unaffordable and broken files: a 200 or 400, and no memory for refused ones
crowd       1,000 pictures in one request, and 400 to explain: refused; the next chat is as fast
hang-ups    clients that disconnect at random moments: no other client's request is lost
costs       explanations during a chat: the chat takes at most `_attacks.FACTOR` times as long
memory      many different pictures: memory grows no further than the caches' stated sizes
preemption  a KV cache of a few blocks, steps of 64 and 16 tokens: same answers as with a large one

Exits with 1 and the reasons if something does not hold. Figures go to `results/hostile.json`.
`soak.py` runs ten minutes at saturation.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _attacks import Attacks
from _machine import describe

RESULTS = Path(__file__).parent / "results" / "hostile.json"
STAGES = ["pictures", "crowd", "hang-ups", "costs", "memory", "preemption"]


def run(attacks: Attacks, stages: list[str]) -> dict[str, Any]:
    """Run stages, and return and print the figures of each."""
    figures = {}
    for stage in stages:
        print(f"{stage} ...", flush=True)
        start = time.monotonic()
        figures[stage] = getattr(attacks, stage.replace("-", "_"))()
        figures[stage]["seconds"] = round(time.monotonic() - start, 1)
        print(json.dumps(figures[stage]), flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], metavar="STAGE")
    parser.add_argument("--quick", action="store_true", help="few requests; no figures are written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        attacks = Attacks(Path(folder), arguments.quick)
        figures = run(attacks, arguments.stages or STAGES)
    if not arguments.quick and not arguments.stages:
        RESULTS.parent.mkdir(exist_ok=True)
        found = {**describe(), "faults": attacks.faults, **figures}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit("\n".join(attacks.faults) or 0)


if __name__ == "__main__":
    main()
