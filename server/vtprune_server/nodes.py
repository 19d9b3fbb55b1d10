"""Every engine of a server prunes, on whichever node it runs.

An engine on another node (`vllm serve --headless`) is started by a command line of its own. Without
`--plugin vtprune` there it is stock vLLM, which has as many rows for a picture as the tower gives,
for a prompt with fewer places: its first picture would end it, and this server with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm.engine.protocol import EngineClient

__all__ = ["check_engines"]


async def check_engines(engine: EngineClient) -> None:
    """Ask all workers of all engines for something that only vtprune's answer.

    Raises:
        RuntimeError: one does not; the message is one sentence.
    """
    try:
        # With several engines all do it, and the first one's answer comes back or any one's error.
        await engine.collective_rpc("vtprune_implementation")
    except Exception as error:  # vLLM's own, which carries the worker's error as text
        raise RuntimeError(
            f"vtprune: an engine of this server does not prune ({error}); allowed: --plugin "
            "vtprune in the command of every node, --headless ones too"
        ) from error
