"""Shadows: some chat completions are answered again once their client has its answer, as pruned and
unpruned, and how far the two agree is counted.

None of it is a client's business: its answer is out before a shadow begins, a request that was
broken off has none, and a fault of one ends there. Cost is bounded: one at a time in a process,
four waiting, `MOST_TOKENS` an answer, at the last priority where vLLM schedules by priority, and
nothing while requests wait in a scheduler. What has no place is dropped and counted.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vllm_pruner.prompt import shadow_request
from vllm_pruner.prompt.agreement import Agreement, count, rate_label
from vllm_pruner.settings.again import UNPRUNED
from vllm_pruner.settings.keys import COUNTS, settings_in
from vllm_pruner.settings.server import ServerConfig
from vllm_pruner.telemetry import metrics

__all__ = ["given", "is_drawn"]

logger = logging.getLogger("vllm.vtprune")

_PLACES = 5
"""Of the one at work and those that wait; each holds the body of its request."""

_LOOK = 0.05
"""Seconds between two looks at whether an answer is out."""

_SECONDS = 120.0
"""What a shadow may take, from its client's answer on."""


def is_drawn(name: str, share: float) -> bool:
    """Whether a request of that name is of the share: always the same for the same name."""
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


def given(handler: Any, request: Any, raw_request: Any, answer: Any) -> Any:
    """Return the answer to a client, the same; one that was drawn has a shadow once it is out.

    Args:
        handler: vLLM's, of chat completions.
        request: as it was answered.
        raw_request: the HTTP request, None if there is none, as of a shadow itself.
        answer: vLLM's, whole or as a stream of events.
    """
    counts = (request.model_extra or {}).get(COUNTS)
    if counts is None or raw_request is None or counts["kept"] >= counts["original"]:
        return answer
    config = ServerConfig.of(settings_in(handler.model_config.multimodal_config))
    name = raw_request.headers.get("X-Request-Id") or request.request_id
    if not config.shadow or not is_drawn(name, config.shadow):
        return answer
    drawn = _Drawn(name, shadow_request.quiet(handler), request, raw_request, counts)
    shadows = _shadows(config.shadow_log)
    if isinstance(answer, AsyncGenerator):
        return _followed(answer, drawn, shadows)
    if hasattr(answer, "choices"):
        shadows.follow(drawn)
    return answer


async def _followed(
    events: AsyncGenerator[Any, None], drawn: _Drawn, shadows: _Shadows
) -> AsyncGenerator[Any, None]:
    """The same events; a client that hangs up never comes to the end."""
    async for event in events:
        yield event
    shadows.follow(drawn)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A request that gets a shadow."""

    name: str
    handler: Any
    request: Any
    raw_request: Any

    counts: dict[str, Any]
    """What `prompt.asked.report` says of it."""


@cache
def _shadows(log: str | None) -> _Shadows:
    """Those of this process, whichever of vLLM's handlers a request goes through."""
    return _Shadows(None if log is None else Path(log))


class _Shadows:
    """All shadows of one process."""

    def __init__(self, log: Path | None) -> None:
        self._log = log
        self._turn = asyncio.Semaphore(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_failed = False

    def follow(self, drawn: _Drawn) -> None:
        """Begin a shadow, or drop it. It is in the context of its client, whose names of images it
        uses."""
        if len(self._tasks) >= _PLACES:
            metrics.SHADOW_SKIPPED.add(reason="queue")
            return
        task = asyncio.create_task(self._bounded(drawn))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bounded(self, drawn: _Drawn) -> None:
        """One shadow: nothing that goes wrong leaves it."""
        try:
            async with asyncio.timeout(_SECONDS):
                await _until_out(drawn.raw_request)
                async with self._turn:
                    await self._compare(drawn)
        except shadow_request.Refused:
            metrics.SHADOW_SKIPPED.add(reason="refused")
        except Exception as error:
            metrics.SHADOW_SKIPPED.add(reason="failed")
            level = logging.DEBUG if self._has_failed else logging.WARNING
            self._has_failed = True  # said once: its message could quote the request
            logger.log(level, "vtprune: a shadow failed with %s", type(error).__name__)

    async def _compare(self, drawn: _Drawn) -> None:
        answers = []
        for settings in (shadow_request.own_settings(drawn.request), UNPRUNED):
            if metrics.waiting() != 0:
                metrics.SHADOW_SKIPPED.add(reason="busy")
                return
            answers.append(await shadow_request.ask(drawn.handler, drawn.request, settings))
        agreement = Agreement(*answers)
        rate = rate_label(drawn.counts["original"], drawn.counts["kept"])
        count(agreement, drawn.counts["method"], rate)
        if self._log is not None:
            await asyncio.to_thread(_append, self._log, _line(drawn, agreement))


async def _until_out(raw_request: Any) -> None:
    """Wait until a client has its answer: then a server hears nothing more of the request, as if it
    had hung up."""
    while not await raw_request.is_disconnected():
        await asyncio.sleep(_LOOK)


def _line(drawn: _Drawn, agreement: Agreement) -> str:
    said = {
        "time": round(time.time(), 3),
        "id": drawn.name,
        "method": drawn.counts["method"],
        "visual_tokens": {key: drawn.counts[key] for key in ("original", "kept")},
        "question": shadow_request.question(drawn.request),
        "pruned": agreement.pruned.text,
        "unpruned": agreement.unpruned.text,
        "tokens": {
            "pruned": len(agreement.pruned.tokens),
            "unpruned": len(agreement.unpruned.tokens),
        },
        "agreed": agreement.agreed,
        "common_tokens": agreement.common,
        "logprob_gap": agreement.gap,
    }
    return json.dumps(said, ensure_ascii=False) + "\n"


def _append(file: Path, line: str) -> None:
    """One write, so that the lines of several API servers stay apart."""
    with file.open("ab", buffering=0) as log:
        log.write(line.encode(errors="surrogatepass"))
