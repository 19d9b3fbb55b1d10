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

INPUTS = (
    (63, "clustered", torch.bfloat16),
    (577, "clustered", torch.bfloat16),
    (577, "near-tie", torch.float32),
    (1000, "random", torch.float16),
)


def main() -> None:
    """Check until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--most", type=int, default=1000, help="rows of the largest inputs")
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.seconds
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    agree = True
    for size, kind, dtype in INPUTS:
        for spec in all_specs() if size <= arguments.most else ():
            if time.monotonic() > until:
                sys.exit(not agree)
            row = _check(spec, size, kind, dtype, device)
            print(json.dumps(row), flush=True)
            agree = agree and row["agrees"]
            if "CUDA error" in row.get("why", ""):
                sys.exit("the context is lost, nothing more can be checked")
    sys.exit(not agree)


def _check(
    spec: Spec, size: int, kind: str, dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """Compare one case; `first_s` is the time of the first call, including compilation."""
    row = {"op": spec.id, "size": size, "kind": kind, "dtype": str(dtype)[6:]}
    try:
        inputs = spec.make_inputs(kind, size, dtype, "cpu")
        moved = {name: _to(value, device) for name, value in inputs.items()}
        start = time.perf_counter()
        found = _to(spec.op(**moved), torch.device("cpu"))  # waits for the GPU
        row["first_s"] = round(time.perf_counter() - start, 2)
        wanted = spec.reference(**inputs)
        atol = spec.tolerance[dtype]
        torch.testing.assert_close(found, wanted, rtol=0, atol=atol, equal_nan=True)
    except Exception as error:  # any error fails only this check
        return {**row, "agrees": False, "why": f"{type(error).__name__}: {error}"[:300]}
    return {**row, "agrees": True}


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device, copy=True)
    return [_to(item, device) for item in value] if isinstance(value, (list, tuple)) else value


if __name__ == "__main__":
    main()
