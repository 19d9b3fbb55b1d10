"""Refuse embeddings that clients send in place of images and videos, where none can be served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm.multimodal.parse import DictEmbeddingItems, EmbeddingItems

from vllm_pruner import compat
from vllm_pruner.prompt.asked import IMAGE, VIDEO
from vllm_pruner.prompt.refusal import refusal
from vllm_pruner.settings.keys import KEY

if TYPE_CHECKING:
    from vllm_pruner.prompt.info import PrunedInfo

__all__ = ["check_rows", "refuse_pruned"]


def check_rows(info: PrunedInfo, items: Any) -> None:
    """Refuse what names rows that it does not bring: an engine with `--ec-transfer-config` or
    `--kv-transfer-config` would look for them under a client's name, which is no identity here, and
    end as it has nothing to encode.

    Args:
        info: the model's.
        items: those of a prompt by modality, as vLLM parsed them.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    for modality, those in items.items():
        if compat.lacks_rows(info.data_parser, modality, those):
            raise refusal(
                f"{modality}_embeds is given without its rows; allowed: the {modality} itself, by "
                "which rows of another engine are found, or the rows",
                parameter=f"{modality}_embeds",
            )


def refuse_pruned(modality: str, items: Any) -> None:
    """Refuse embeddings in place of what is to be pruned.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    if isinstance(items, DictEmbeddingItems | EmbeddingItems):
        raise refusal(
            f"{modality}_embeds is given, but vtprune prunes in the encoder, which it bypasses; "
            f"allowed: an {IMAGE} or a {VIDEO}, or {KEY} rate 0",
            parameter=f"{modality}_embeds",
        )
