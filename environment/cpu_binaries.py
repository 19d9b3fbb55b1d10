"""A release of vLLM that has no build for CPUs, run on the compiled operators of .venv's vLLM.

Its wheel is for GPUs. What vLLM compiles for CPUs is called through `torch.ops`; names and
arguments there seldom change from one release to the next, and one that did fails by its name. So
every line of Python is the release's, and its operators are the previous one's.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

__all__ = ["borrow"]


def borrow(target: Path) -> None:
    """Make the vLLM in a folder one for CPUs.

    Args:
        target: a folder that `pip install --target` put vLLM's wheel into.

    Raises:
        FileNotFoundError: it holds no vLLM.
    """
    record = next(target.glob("vllm-*.dist-info"), None)
    if record is None:
        raise FileNotFoundError(f"{target} holds no vLLM")
    for binary in target.glob("vllm/**/*.so"):
        binary.unlink()
    spec = importlib.util.find_spec("vllm")
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).resolve().parent  # an environment may be reached by a link
    for binary in source.glob("**/*.so"):
        place = target / "vllm" / binary.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(binary)
    _call_it_cpu(record / "METADATA")


def _call_it_cpu(metadata: Path) -> None:
    """Add "+cpu" to the distribution's version, by which vLLM recognises such a build."""
    line = re.compile(r"^(Version: .*)$", re.MULTILINE)
    metadata.write_text(line.sub(r"\1+cpu", metadata.read_text(), count=1))
