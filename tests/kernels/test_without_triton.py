"""Without Triton the references do everything."""

from __future__ import annotations

import subprocess
import sys

import torch
from vtprune_kernels import dedup


def test_without_triton_the_references_do_everything() -> None:
    program = """
import sys
sys.modules["triton"] = None  # importing it raises ImportError
import torch, vtprune_kernels as kernels
assert "not installed" in kernels.implementation(torch.device("cuda"))
print(kernels.dedup(kernels.cosine_gram(torch.eye(9)[None]), 3).tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(dedup(torch.eye(9)[None], 3).tolist())
