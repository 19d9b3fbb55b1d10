"""Embeddings that clients send in place of what is encoded, and what stands for them.

Replaces: nothing.
Why: an engine behind an encoder or another engine's KV takes an item's metadata alone, for rows
that it finds under the item's name; and `--enable-prompt-embeds` writes one token wherever a prompt
has embeddings in place of text.
Relies on: `MultiModalDataParser.embedding_field_sets`, whose second set may be missing there;
`PROMPT_EMBEDS_PLACEHOLDER_TOKEN`, which vLLM adds to the tokenizer if the flag is given.
vLLM versions: 0.32 and 0.33; 0.31 has neither of the names, so there nothing is refused.
Goes when: never.
"""

from __future__ import annotations

from typing import Any

from vllm_pruner.compat.versions import at_least

__all__ = ["lacks_rows", "prompt_embeds_token"]


def lacks_rows(parser: Any, modality: str, items: Any) -> bool:
    """Return whether items are sent as metadata alone.

    Args:
        parser: vLLM's parser of the model's data.
        modality: the modality.
        items: the items as the parser returned them.
    """
    from vllm.multimodal.parse import DictEmbeddingItems

    sets = getattr(parser, "embedding_field_sets", None)
    if sets is None or not isinstance(items, DictEmbeddingItems):
        return False
    _, may_be_missing = sets(modality)
    return not may_be_missing <= items.data.keys()


def prompt_embeds_token(tokenizer: Any) -> int | None:
    """Return the id of the token that stands for each embedding in place of text; None if a prompt
    can have none."""
    if not at_least((0, 32)):
        return None
    from vllm.renderers.chat_utils import PROMPT_EMBEDS_PLACEHOLDER_TOKEN as written

    ids = tokenizer.encode(written, add_special_tokens=False)
    return ids[0] if len(ids) == 1 else None
