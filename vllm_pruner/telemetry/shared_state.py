"""What the API servers of one server share beside counters: small values in the metrics' folder."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["shared_state"]


@contextmanager
def shared_state(folder: str, name: str) -> Iterator[dict[str, Any]]:
    """Give what was written down last, to be changed, while other processes wait.

    Args:
        folder: of the metrics.
        name: of the values; the file is called after it.

    Raises:
        OSError: the folder is gone, as when the server ends.
    """
    with open(os.path.join(folder, f"vtprune-{name}.json"), "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        before = file.read()
        try:
            last: dict[str, Any] = json.loads(before) if before else {}
        except ValueError:  # whoever wrote it was killed halfway
            last = {}
        yield last
        file.truncate(0)
        file.write(json.dumps(last))
