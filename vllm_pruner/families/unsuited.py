"""Methods that do not suit a model's pictures or prompts, refused at start and as a 400, each by a
`Family.check_method` or part of one; and arguments for a processor that vLLM does not count by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vllm_pruner.methods.base import Method
from vllm_pruner.settings.errors import ConfigError, SettingError

__all__ = ["check_counted", "check_one_grid", "check_shrinking", "check_text"]


def check_shrinking(
    hf_config: Any,
    method: Method,
    smaller: str = "max_pixels",
    place: str = "mm_processor_kwargs",
) -> None:
    """Refuse a method that shrinks the image, where the processor has a key for that.

    Args:
        hf_config: the configuration of the whole model.
        method: the method.
        smaller: what shrinks images instead, for the error.
        place: where that is set.

    Raises:
        SettingError: the method shrinks the image.
    """
    if method.shrink is not None:
        why = (
            ", which shrinks the image before the tower, but the processor of this model does that"
        )
        allowed = f"{smaller} in {place}, or another method"
        raise SettingError("method", repr(method.name), allowed, why)


def check_one_grid(hf_config: Any, method: Method, image: str = "tiles") -> None:
    """Refuse a method that works on one grid of tokens, which an image of this model is not.

    Args:
        hf_config: the configuration of the whole model.
        method: the method.
        image: what it is, for the error.

    Raises:
        SettingError: the method needs a grid.
    """
    if method.needs_one_grid:
        why = f", which works on an image of one grid, but an image of this model is {image}"
        allowed = "methods that choose tokens one by one, such as scope"
        raise SettingError("method", repr(method.name), allowed, why)


def check_text(hf_config: Any, method: Method, allowed: str) -> None:
    """Refuse a method that reads the text after an image, where that is spelled out.

    Args:
        hf_config: the configuration of the whole model.
        method: the method.
        allowed: what is, for the error.

    Raises:
        SettingError: the method reads text.
    """
    if method.needs_text:
        why = (
            ", which reads the text after an image, but prompts of this model have no token that "
            "stands for one"
        )
        raise SettingError("method", repr(method.name), allowed, why)


def check_counted(processor: Any, said: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse arguments of a request by which its pictures are cut otherwise than counted.

    Args:
        processor: the image processor, by whose own arguments vLLM counts.
        said: the arguments of the request and the server.
        names: of those that change how a picture is cut.

    Raises:
        ConfigError: one of them differs.
    """
    for name in names:
        counted = getattr(processor, name, None)
        if said.get(name, counted) != counted:
            raise ConfigError(
                f"{name} of the image processor is {said[name]!r}; allowed: {counted!r}, by which "
                "vLLM counts an image's tokens"
            )
