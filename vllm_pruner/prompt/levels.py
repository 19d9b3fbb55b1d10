"""OpenAI's `image_url.detail` of every image in the parts of a request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vllm_pruner.prompt.refusal import settings_refusal
from vllm_pruner.settings.detail import AUTO, LEVELS
from vllm_pruner.settings.errors import SettingError

__all__ = ["levels_of", "levels_within"]

_IMAGES = ("image_url", "input_image", "image_pil", "image_embeds")
"""Content parts that vLLM counts as images."""


def levels_of(messages: Iterable[Any]) -> list[str]:
    """Return the level of every image of one conversation, in the order in which vLLM takes them.

    Raises:
        VLLMValidationError: a 400 for the client: there is no such level.
    """
    contents = [message.get("content") for message in messages if isinstance(message, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return [_level(part) for part in parts if _is_image(part)]


def levels_within(value: Any) -> Iterator[str]:
    """Yield the levels of the images anywhere in JSON; raises as `levels_of` does."""
    if _is_image(value):
        yield _level(value)
    elif isinstance(value, Mapping):
        yield from levels_within([*value.values()])
    elif isinstance(value, list):
        for each in value:
            yield from levels_within(each)


def _is_image(part: Any) -> bool:
    """Whether a content part is an image; vLLM accepts parts without `type`."""
    if not isinstance(part, dict):
        return False
    kind = part.get("type")
    return kind in _IMAGES or (kind is None and any(name in part for name in _IMAGES))


def _level(part: dict[str, Any]) -> str:
    image = part.get("image_url")
    # Chat completions have it next to the URL, the Responses API next to the type.
    level = (image if isinstance(image, dict) else part).get("detail") or AUTO
    if level not in LEVELS:
        raise settings_refusal(SettingError("image_url.detail", repr(level), ", ".join(LEVELS)))
    return str(level)
