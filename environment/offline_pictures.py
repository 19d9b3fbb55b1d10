"""Pictures as vLLM takes them without a server."""

from __future__ import annotations

from typing import Any

__all__ = ["offline_pictures"]


def offline_pictures(hf_config: Any, pictures: list[Any]) -> dict[str, list[Any]]:
    """Return the data of a prompt with pictures: to a stock Kimi-K2.5 each is a chunk of vision.

    Args:
        hf_config: the configuration of the whole model, as vLLM has it once it has a processor.
        pictures: the pictures.
    """
    if not getattr(hf_config, "use_unified_vision_chunk", False):
        return {"image": pictures}
    chunks = [{"type": "image", "image": picture, "uuid": None} for picture in pictures]
    return {"vision_chunk": chunks}
