"""Explain what the images and videos of a message would keep and why, without generating
anything."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import HTTPException
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

from vllm_pruner.settings.keys import KEY
from vtprune_server.overlay import draw, picture
from vtprune_server.protocol import ExplainRequest, ExplainResponse, Explanation, View
from vtprune_server.surface import Surface

__all__ = ["explain", "items_of", "render", "selection"]

_MOST_IMAGES = 16
"""Most images in one message: an explanation costs a run of the tower per image."""

_MOST_VIDEOS = 1
"""Most videos in one message."""


async def explain(surface: Surface, body: ExplainRequest) -> ExplainResponse:
    """Select as a chat completion with this body would, and explain the selection.

    Raises:
        HTTPException: the message has nothing to explain or too much, or a chat completion would
            refuse it.
    """
    _check_number(body.messages)
    engine_input = await render(surface, body)
    images, videos = (items_of(engine_input, each) for each in ("image", "video"))
    if surface.image_info.in_tree is not None:
        videos = []  # vLLM selects from them
    if not images and not videos:
        raise HTTPException(400, "messages have no image; allowed: one or more, or a video")
    return ExplainResponse(
        images=await _explained(surface, images, overlay=body.overlay),
        videos=await _explained(surface, videos, overlay=False),
    )


async def _explained(surface: Surface, items: list[Any], *, overlay: bool) -> list[Explanation]:
    explanations = []
    for item in items:
        # One at a time, so that the engine can serve other requests between two calls.
        found = await selection(surface, item)
        drawn = item if overlay else None
        explanations.append(await asyncio.to_thread(_explanation, surface, found, drawn))
    return explanations


def _check_number(messages: list[dict[str, Any]]) -> None:
    """Refuse too many images or videos before any of them is read.

    Raises:
        HTTPException: the message has more than are explained at once.
    """
    contents = [message.get("content") for message in messages]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    # vLLM infers the type of a part without `type` from its keys.
    words = [f"{part.get('type')} {' '.join(part)}" for part in parts if isinstance(part, dict)]
    for what, most in (("image", _MOST_IMAGES), ("video", _MOST_VIDEOS)):
        if (count := sum(what in word for word in words)) > most:
            raise HTTPException(
                400, f"messages have {count} {what}s; allowed: {most} in an explanation"
            )


async def render(surface: Surface, body: ExplainRequest) -> Any:
    """Return the engine's input for a message, made without vLLM's caches.

    Raises:
        HTTPException: a chat completion would refuse the message, too.
    """
    settings = {} if body.vtprune is None else {KEY: body.vtprune}
    request = ChatCompletionRequest.model_validate({"messages": body.messages, **settings})
    rendered = await surface.renderer.render_chat(request, skip_mm_cache=True)
    if not isinstance(rendered, tuple):
        raise HTTPException(rendered.error.code, rendered.error.message)
    (engine_input,) = rendered[1]
    length, most = len(engine_input["prompt_token_ids"]), surface.engine.model_config.max_model_len
    if length > most:
        raise HTTPException(400, f"the prompt has {length} tokens; allowed: {most}")
    return engine_input


def items_of(engine_input: Any, modality: str = "image") -> list[dict[str, Any]]:
    """Return the images or videos as the model gets them, each as a batch of one, with the fields
    of their plans; only tensors, and lists of them, of what is known of a video."""
    made = (
        {name: field.field.reduce_data([field]) for name, field in item.items()}
        for item in engine_input.get("mm_kwargs", {}).get(modality, [])
    )
    return [{name: each for name, each in item.items() if _has_tensors(each)} for item in made]


def _has_tensors(value: Any) -> bool:
    """Return whether a field is a tensor, or a list, possibly of lists, that begins with one."""
    while isinstance(value, list) and value:
        value = value[0]
    return hasattr(value, "is_floating_point")


async def selection(surface: Surface, item: dict[str, Any]) -> dict[str, Any]:
    """Return a worker's selection for an image; see `vllm_pruner.worker.explain`.

    Raises:
        HTTPException: 500, for a method of another package that fails.
    """
    packed = {name: _pack(value) for name, value in item.items()}
    (answer,) = await surface.ask_worker("vtprune_explain", [packed])
    found: dict[str, Any] = answer
    if found["fault"] is not None:
        raise HTTPException(500, f"{KEY}: {found['fault']}")
    return found


def _pack(value: Any) -> tuple[str, list[int], bytes] | list[Any]:
    """Return a tensor, or a list of them, in a form that vLLM's calls to workers can carry."""
    if isinstance(value, list):
        return [_pack(each) for each in value]
    tensor = value
    array = tensor.contiguous().float().numpy() if tensor.is_floating_point() else tensor.numpy()
    return str(array.dtype), list(array.shape), array.tobytes()


def _explanation(surface: Surface, found: dict[str, Any], item: Any) -> Explanation:
    views = []
    first = found["views"][0]
    whole = first["rows"][1], first["columns"][1]
    for view in found["views"]:
        patches = (view["rows"][1] - view["rows"][0], view["columns"][1] - view["columns"][0])
        rows, columns = view["tokens"] or patches
        overlay = None
        # If a picture is so narrow that all of its raster is padding, there is nothing to draw; nor
        # if its tokens have no places in it.
        if item is not None and rows and columns and view["is_drawn"]:
            overlay = draw(_seen(surface, item, view, whole), rows, columns, view["kept"])
        scores = {name: view[name] for name in ("importance", "relevance")}
        views.append(View(rows=rows, columns=columns, kept=view["kept"], overlay=overlay, **scores))
    return Explanation(
        settings=found["settings"], original=found["original"], kept=found["kept"], views=views
    )


def _seen(surface: Surface, item: Any, view: dict[str, Any], whole: tuple[int, int]) -> Any:
    """Return the picture of a view of an image whose crops have `whole` rows and columns of
    patches."""
    info = surface.image_info
    pixels = info.seen(item)
    if not pixels.is_floating_point():
        return picture(pixels.numpy() / 255, 0.0, 1.0, view, whole)
    mean, std = info.normalisation()
    return picture(pixels.float().numpy(), mean, std, view, whole)
