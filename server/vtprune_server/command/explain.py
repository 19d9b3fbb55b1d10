"""`vtprune explain FILE`: which tokens of an image are kept, as a picture."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from vtprune_server.command.ask import Asked, data_url

__all__ = ["explain"]


def explain(
    asked: Asked, file: Path, question: str, settings: dict[str, Any], out: Path
) -> list[tuple[str, str]]:
    """Write one picture for each view of an image, and return their files with what they show.

    Args:
        asked: the server.
        file: the image's file.
        question: a question about it.
        settings: the request's settings.
        out: file for the first picture; an image of several crops has more, with numbered names.
    """
    content = [{"type": "image_url", "image_url": {"url": data_url(file)}}]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]
    (found,) = asked.post("/vtprune/explain", {"messages": messages, "vtprune": settings})["images"]
    method, kept = found["settings"]["method"], len(found["kept"])
    rows = [(str(file), f"{method} keeps {kept} of {found['original']} visual tokens")]
    for place, view in enumerate(each for each in found["views"] if each["overlay"]):
        picture = out if place == 0 else out.with_stem(f"{out.stem}-{place}")
        picture.write_bytes(base64.b64decode(view["overlay"].partition(",")[2]))
        size = f"{view['rows']} x {view['columns']}"
        rows.append((str(picture), f"{len(view['kept'])} of {size} patches kept, others dark"))
    return rows
