"""A package of somebody else, in a folder that is put on the path of a process or a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["declare_package", "install_package"]


def install_package(source: Path, site: Path) -> None:
    """Build what is in `source` and install it into `site`, with nothing from an index."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", "--no-index", "--target", site, source],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def declare_package(site: Path, name: str, group: str, entry_points: dict[str, str]) -> None:
    """Write what pip leaves of a package beside its modules, with its entry points of a group."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "".join(f"{key} = {value}\n" for key, value in entry_points.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}")
