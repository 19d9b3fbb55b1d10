"""Pass one picture through the real processor and model before a server becomes ready.

Run on a vLLM that vtprune was not checked on, where every name may exist but mean something else.
The prompt must have exactly `keep` placeholders, adjacent to each other, and the model must return
as many rows, for `keep` tokens in ascending order.
"""

from __future__ import annotations

import base64
import io
from importlib.metadata import version
from typing import Any

import numpy as np
from fastapi import HTTPException
from PIL import Image
from vllm.multimodal.parse import ImageSize

from vllm_pruner.settings.bounds import clamp
from vllm_pruner.settings.config import PruneConfig
from vtprune_server.explain import items_of, render, selection
from vtprune_server.protocol import ExplainRequest
from vtprune_server.surface import Surface

__all__ = ["check_vllm", "fault"]

_SIZE = 320, 240
"""Width and height of the picture."""


async def check_vllm(surface: Surface) -> None:
    """Pass a picture through, under the server's own settings or, if they prune nothing, at the
    allowed rate nearest to 0.5.

    Raises:
        RuntimeError: the result is wrong; the message is one sentence.
    """
    settings = {"rate": clamp(surface.config.limits, 0.5)} if surface.config.off else None
    body = ExplainRequest(messages=[_message()], vtprune=settings, overlay=False)
    try:
        engine_input = await render(surface, body)
        (item,) = items_of(engine_input)
        selected = await selection(surface, item)
    except HTTPException as error:
        raise _refusal(f"a picture was refused ({error.detail})") from None
    beside = surface.image_info.separators(ImageSize(*_SIZE), {})
    if wrong := fault(engine_input, selected, beside):
        raise _refusal(wrong)


def fault(engine_input: Any, selected: dict[str, Any], beside: int = 0) -> str | None:
    """Return what is wrong with a prompt of one picture and the selection from it, or None.

    Args:
        engine_input: the engine's input for the prompt.
        selected: a worker's selection; see `explain.selection`.
        beside: number of placeholders for the model's own rows; see `Family.separators`.
    """
    if not selected["settings"]:
        return None  # the limits allow no pruning
    keep = PruneConfig.parse(selected["settings"]).keep_count(selected["original"])
    places = keep + beside
    (place,) = engine_input["mm_placeholders"]["image"]
    if place.get_num_embeds() != places:
        return f"its prompt has {place.get_num_embeds()} places for {places} visual tokens"
    prompt = engine_input["prompt_token_ids"]
    run = prompt[place.offset : place.offset + place.length]
    if place.length == places and (len(set(run)) != 1 or prompt.count(run[0]) != places):
        return f"its {places} places are not adjacent in the prompt"
    if selected["rows"] != places:
        return f"the model returned {selected['rows']} rows for {places} places"
    kept = selected["kept"]
    if len(kept) != keep or kept != sorted(set(kept)) or kept[-1] >= selected["original"]:
        return f"the model did not keep {keep} different tokens in ascending order"
    return None


def _refusal(reason: str) -> RuntimeError:
    return RuntimeError(
        f"vtprune: the test picture failed on vLLM {version('vllm')}: {reason} "
        "(set VLLM_VTPRUNE_DISABLE=1 to run this vLLM without pruning)"
    )


def _message() -> dict[str, Any]:
    """Return a message with a drawn picture and a question."""
    height, width = np.mgrid[0 : _SIZE[1], 0 : _SIZE[0]]
    pixels = np.stack([height, width, (height * width) // _SIZE[1]], axis=2).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": "What is in the picture?"},
        ],
    }
