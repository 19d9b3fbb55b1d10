"""Shadows: once a client has its answer, some chat completions are answered again, pruned and
unpruned, to count how far the two answers agree.

No client is affected: its answer is complete before its shadow begins, an aborted request has no
shadow, and an error in a shadow stays there. The cost is bounded: one shadow at a time per process,
four waiting, `MOST_TOKENS` per answer, the lowest priority if vLLM schedules by priority, and no
shadow while requests wait, in a scheduler or for their images to be prepared. Shadows beyond that
are dropped and counted.
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
from vllm_pruner.prompt.live_rate import live_rate
from vllm_pruner.prompt.rendering import rendered
from vllm_pruner.prompt.shadow_rule import ShadowRule
from vllm_pruner.settings.again import UNPRUNED, Again
from vllm_pruner.settings.keys import COUNTS, sent_with, settings_in
from vllm_pruner.settings.server import ServerConfig
from vllm_pruner.telemetry import metrics
from vllm_pruner.telemetry.engine_load import engine_load

__all__ = ["given", "is_drawn"]

logger = logging.getLogger("vllm.vtprune")

_PLACES = 5
"""Most shadows running or waiting; each holds the body of its request."""

_LOOK = 0.05
"""Seconds between two checks whether an answer has been sent."""

_SECONDS = 120.0
"""Most seconds that a shadow may take, waiting included."""


def is_drawn(name: str, share: float) -> bool:
    """Whether the request with this id belongs to the share; always the same for the same id."""
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


def given(handler: Any, request: Any, raw_request: Any, answer: Any) -> Any:
    """Return the answer to a client unchanged, and start a shadow after it if the request is drawn.

    Args:
        handler: vLLM's handler of chat completions.
        request: the request that was answered.
        raw_request: the HTTP request; None if there is none, as for a shadow itself.
        answer: vLLM's answer, whole or as a stream of events.
    """
    counts = (request.model_extra or {}).get(COUNTS)
    if counts is None or raw_request is None or counts["kept"] >= counts["original"]:
        return answer
    config = ServerConfig.of(settings_in(handler.model_config.multimodal_config))
    name = raw_request.headers.get("X-Request-Id") or request.request_id
    if not config.shadow or not is_drawn(name, config.shadow):
        return answer
    live = live_rate(config)
    rule = None if live is None else live.rule
    drawn = _Drawn(name, shadow_request.quiet(handler), request, raw_request, counts, rule)
    shadows = _shadows(config.shadow_log)
    if isinstance(answer, AsyncGenerator):
        return _followed(answer, drawn, shadows)
    if hasattr(answer, "choices"):
        shadows.follow(drawn)
    return answer


async def _followed(
    events: AsyncGenerator[Any, None], drawn: _Drawn, shadows: _Shadows
) -> AsyncGenerator[Any, None]:
    """Yield the events, then start the shadow; if the client hangs up, the end is never reached."""
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
    """The result of `prompt.asked.report` for it."""

    rule: ShadowRule | None
    """That is told what becomes of it."""


@cache
def _shadows(log: str | None) -> _Shadows:
    """Return the shadows of this process, shared by all of vLLM's handlers."""
    return _Shadows(None if log is None else Path(log))


class _Shadows:
    """All shadows of one process."""

    def __init__(self, log: Path | None) -> None:
        self._log = log
        self._turn = asyncio.Semaphore(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_failed = False

    def follow(self, drawn: _Drawn) -> None:
        """Start a shadow, or drop it. It runs in its client's context (`contextvars`), so that it
        can use the client's names for images."""
        if len(self._tasks) >= _PLACES:
            metrics.SHADOW_SKIPPED.add(reason="queue")
            return
        task = asyncio.create_task(self._bounded(drawn))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bounded(self, drawn: _Drawn) -> None:
        """Run one shadow; no error escapes it."""
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
            self._has_failed = True  # warn once, by type: the message could quote the request
            logger.log(level, "vtprune: a shadow failed with %s", type(error).__name__)

    async def _compare(self, drawn: _Drawn) -> None:
        answers = []
        for settings in (sent_with(drawn.request), UNPRUNED):
            if _requests_wait():
                metrics.SHADOW_SKIPPED.add(reason="busy")
                return
            again = Again(settings, drawn.counts.get("rate"))
            answers.append(await shadow_request.ask(drawn.handler, drawn.request, again))
        agreement = Agreement(*answers)
        rate = rate_label(drawn.counts["original"], drawn.counts["kept"])
        count(agreement, drawn.counts["method"], rate)
        if drawn.rule is not None and "rate" in drawn.counts:
            drawn.rule.note(drawn.counts["rate"], agreement)
        if self._log is not None:
            await asyncio.to_thread(_append, self._log, _line(drawn, agreement))


def _requests_wait() -> bool:
    """Whether requests wait in a scheduler, or for this process: of several whose prompts it makes,
    it prepares the images of one at a time."""
    load = engine_load()
    return load is None or load.waiting > 0 or rendered() > 1


async def _until_out(raw_request: Any) -> None:
    """Wait until a client has its answer: then the server sees the request as disconnected."""
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
    """Append with a single write, so that the lines of several API servers do not mix."""
    with file.open("ab", buffering=0) as log:
        log.write(line.encode(errors="surrogatepass"))
