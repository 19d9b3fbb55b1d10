"""Prompts as Mistral's own tokenizer writes them, with all tokens of their pictures."""

from __future__ import annotations

from typing import Any

from mistral_common.protocol.instruct.chunk import ImageChunk, TextChunk
from mistral_common.protocol.instruct.messages import UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest

__all__ = ["ids_of"]


def ids_of(tokenizer: Any, *parts: Any) -> list[int]:
    """The token ids of a message of texts and pictures.

    Args:
        tokenizer: vLLM's, in mode `mistral`.
        parts: each a text, or Pillow's image with or without its file.
    """
    chunks = [
        TextChunk(text=part)
        if isinstance(part, str)
        else ImageChunk(image=getattr(part, "media", part))
        for part in parts
    ]
    request: Any = ChatCompletionRequest(messages=[UserMessage(content=chunks)])
    tokens: list[int] = tokenizer.mistral.encode_chat_completion(request).tokens
    return tokens
