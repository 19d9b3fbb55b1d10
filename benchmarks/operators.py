"""Check every operator on the GPU against its reference on the CPU, with a JSON line per check.

    python benchmarks/operators.py [--seconds 90] [--most 577]

It continues after a failed check, and ends when the time is up or the CUDA context is lost. The
exit code is 1 if a check failed. Without a GPU, the operators run as kernels under
`TRITON_INTERPRET=1`, else as the references themselves.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import torch
from vtprune_kernels.spec import Spec, all_specs
from vtprune_kernels.trial import INPUTS, Case, disagreement


def main() -> None:
    """Check until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--most", type=int, default=1000, help="rows of the largest inputs")
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.seconds
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    agree = True
    for case in INPUTS:
        for spec in all_specs() if case.size <= arguments.most else ():
            if time.monotonic() > until:
                sys.exit(not agree)
            row = _check(spec, case, device)
            print(json.dumps(row), flush=True)
            agree = agree and row["agrees"]
            if "CUDA error" in row.get("why", ""):
                sys.exit("the context is lost, nothing more can be checked")
    sys.exit(not agree)


def _check(spec: Spec, case: Case, device: torch.device) -> dict[str, Any]:
    """Compare one case; `seconds` are those of operator and reference, with compilation."""
    start = time.perf_counter()
    why = disagreement(spec, case, device)
    row = {"op": spec.id, **case._asdict(), "dtype": str(case.dtype)[6:], "agrees": why is None}
    row["seconds"] = round(time.perf_counter() - start, 2)
    return row if why is None else {**row, "why": why[:300]}


if __name__ == "__main__":
    main()
