"""What processes that tests start import from."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["path_with"]


def path_with(*folders: Path) -> str:
    """`PYTHONPATH` with folders in front of those that this process has in it."""
    inherited = filter(None, [os.environ.get("PYTHONPATH")])
    return os.pathsep.join([*map(str, folders), *inherited])
