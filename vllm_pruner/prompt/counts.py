"""What a request's images and videos came to: its counts go with it from the prompt to the usage of
its answer, its headers and its span."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

from vllm_pruner.prompt.usage import in_usage
from vllm_pruner.settings.keys import COUNTS, REPORT, TOLD

__all__ = ["USAGE", "add_up", "of_prompt", "report", "span_attributes", "take", "tell", "told"]

USAGE = "visual_tokens"
"""The field of `usage`: `{"original": N, "kept": K}`, the visual tokens of all images and videos
before and after pruning, with the same for videos alone in `"video"` if there are any, `"floor":
"text"` if an image with print kept more than the rate, and `"rate"` if the request has the server's
own rate and that moves."""


def of_prompt(engine_input: Any) -> dict[str, Any] | None:
    """Return the `USAGE` counts of a prompt; None if there are none."""
    said = engine_input.get(REPORT) if isinstance(engine_input, dict) else None
    return said and {key: value for key, value in said.items() if key != "method"}


def take(request: Any, engine_input: Any) -> None:
    """Store a prompt's counts on its request, for `report`."""
    if (told := engine_input.get(REPORT)) is not None:
        request.model_extra[COUNTS] = told  # as `setattr` does after a dozen questions


def span_attributes(engine_input: Any) -> dict[str, Any]:
    """Return attributes for the OpenTelemetry span of a request; empty if nothing is pruned.

    The rate is the fraction removed of all images and videos together, whatever was asked for.
    """
    told = engine_input.get(REPORT) if isinstance(engine_input, dict) else None
    if told is None or not told["method"]:
        return {}
    original, kept, places = told["original"], told["kept"], engine_input["mm_placeholders"]
    videos = {"vtprune.videos": len(places["video"])} if "video" in told else {}
    return {
        "vtprune.images": len(places.get("image", ())),
        **videos,
        "vtprune.visual_tokens.original": original,
        "vtprune.visual_tokens.kept": kept,
        "vtprune.method": told["method"],
        "vtprune.rate": 1 - kept / original,
        **({"vtprune.floor": told["floor"]} if "floor" in told else {}),
    }


def report(request: Any, answer: Any, scope: MutableMapping[str, Any]) -> Any:
    """Return the answer to a chat completion or a Responses request with the counts in its usage,
    and store the counts for its headers.

    Args:
        request: vLLM's request, on which `take` stored the counts.
        answer: vLLM's answer, streamed or whole.
        scope: the scope of the HTTP request.
    """
    extra = request.model_extra or {}
    # A response in the background is reported twice: queued, for the headers, and done.
    later = getattr(request, "background", False)
    counts = extra.get(COUNTS) if later else extra.pop(COUNTS, None)
    if counts is None:
        return answer
    counts = {key: value for key, value in counts.items() if key != "method"}
    scope.setdefault(TOLD, {}).update(counts)
    return in_usage(answer, lambda _: {USAGE: counts})


def add_up(batch: Any, requests: Iterable[Any]) -> None:
    """Store on a batch of conversations the sums of its requests' counts."""
    each = [(request.model_extra or {}).get(COUNTS) for request in requests]
    if counted := [counts for counts in each if counts is not None]:
        setattr(batch, COUNTS, _total(counted))


def tell(scope: MutableMapping[str, Any], engine_inputs: Iterable[Any]) -> None:
    """Store the sums of the counts of a request's prompts for the headers of its answer.

    Args:
        scope: the scope of the HTTP request.
        engine_inputs: vLLM's, one for each prompt.
    """
    each = [of_prompt(engine_input) for engine_input in engine_inputs]
    if counted := [counts for counts in each if counts is not None]:
        scope.setdefault(TOLD, {}).update(_total(counted))


def _total(counted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    videos = [counts["video"] for counts in counted if "video" in counts]
    total: dict[str, Any] = _sum(counted)
    if videos:
        total["video"] = _sum(videos)
    if floors := {counts["floor"] for counts in counted if "floor" in counts}:
        total["floor"] = floors.pop()
    return total


def _sum(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {key: sum(each[key] for each in counts) for key in ("original", "kept")}


def told(scope: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts that `report` put into the scope of an HTTP request; empty if none."""
    counts: dict[str, Any] = scope.get(TOLD, {})
    return dict(counts)
