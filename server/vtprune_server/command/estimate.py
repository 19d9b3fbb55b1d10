"""`vtprune estimate FILE`: visual tokens of image files before and after pruning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vtprune_server.command.ask import Asked, data_url

__all__ = ["estimate"]


def estimate(
    asked: Asked, files: Sequence[Path], settings: dict[str, Any], detail: str
) -> list[tuple[str, str]]:
    """Return the counts of each file and, if there are several, of all together."""
    images = [{"url": data_url(file), "detail": detail} for file in files]
    counts = asked.post("/vtprune/estimate", {"images": images, "vtprune": settings})
    rows = [(str(file), _told(one)) for file, one in zip(files, counts["images"], strict=True)]
    return rows if len(rows) == 1 else [*rows, ("all", _told(counts))]


_RAISED = {
    "text": ", raised because it has print",
    "content": ", raised because of what it shows",
}
"""By the floor that counted."""


def _told(counts: dict[str, Any]) -> str:
    share = counts["kept"] / counts["original"]
    why = _RAISED.get(counts.get("floor") or "", "")
    return f"{counts['kept']} of {counts['original']} visual tokens ({share:.1%}){why}"
