"""The inside of vLLM's CLIP and SigLIP towers.

Replaces: nothing.
Why: methods read query and key of a layer, and shrunk images need other positions; vLLM's
interfaces show a tower's output only.
Relies on: `vision_model.encoder.layers[i].self_attn.attn` being an `MMEncoderAttention`, which is
called with query, key and value of `[images, tokens, heads * size]` each and has `num_heads` (this
rank's) and `scale`; towers built only up to the feature layer; the whole of
`vision_model.embeddings.position_embedding` being looked up and added to the patches whatever the
image's size. vLLM's SigLIP has an `interpolate_pos_encoding` of its own, but that takes the width
for the number of positions.
vLLM versions: 0.32.
Goes when: both towers interpolate, and attention can be observed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm_pruner.compat.versions import SUPPORTED

if TYPE_CHECKING:
    from torch import nn
    from vllm.model_executor.layers.attention import MMEncoderAttention

__all__ = ["position_embedding", "tower_attention"]


def tower_attention(tower: nn.Module, layer: int = -1) -> MMEncoderAttention:
    """Return the attention module of a tower's layer; by default of the last one, which produces
    the features.

    Raises:
        RuntimeError: the tower has no such module.
    """
    from vllm.model_executor.layers.attention import MMEncoderAttention

    attention: nn.Module
    try:
        layers: Any = tower.get_submodule("vision_model.encoder.layers")
        attention = layers[layer].self_attn.attn
    except (AttributeError, IndexError):
        attention = tower
    if not isinstance(attention, MMEncoderAttention):
        raise RuntimeError(
            f"vtprune: {type(tower).__name__} has no MMEncoderAttention at "
            f"vision_model.encoder.layers[{layer}].self_attn.attn as it has in vLLM {SUPPORTED}"
        )
    return attention


def position_embedding(tower: nn.Module) -> nn.Embedding:
    """Return the learnt positions of a tower: `[positions, D]`, a class token's first, then the
    patches' in raster order. An image of another grid needs another output of this module.

    Raises:
        RuntimeError: the tower has no such module.
    """
    from torch import nn

    try:
        positions: Any = tower.get_submodule("vision_model.embeddings.position_embedding")
    except AttributeError:
        positions = None
    if not isinstance(positions, nn.Embedding):
        raise RuntimeError(
            f"vtprune: {type(tower).__name__} has no Embedding at "
            f"vision_model.embeddings.position_embedding as it has in vLLM {SUPPORTED}"
        )
    return positions
