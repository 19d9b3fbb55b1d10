"""The inside of vLLM's vision towers: CLIP, SigLIP, InternViT, Idefics3's, Pixtral's and
Qwen-VL's.

Replaces: nothing.
Why: methods read query and key of a layer, and shrunk images need other positions; vLLM's
interfaces show a tower's output only.
Relies on: `vision_model.encoder.layers[i].self_attn.attn` being an `MMEncoderAttention`, which is
called with query, key and value of `[images, tokens, heads * size]` each and has `num_heads` (this
rank's) and `scale`; of InternViT, `encoder.layers[i].attn.attn` (`encoder.layer[i].attention.attn`
in the transformers form) being one, which is called alike, and of Idefics3's
`encoder.layers[i].self_attn.attn`, which is not called if the tower is given a mask of attention;
of Qwen-VL's towers, `blocks[i].attn.attn` being one, which is called with the keywords `query` and
`key` of `[1, patches, heads, size]`, positions applied; of Pixtral's in the transformers form,
`transformer.layers[i].attention.attn` being one, which is called with the same by place; CLIP and
SigLIP towers built only up to the feature layer; the whole of
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


def tower_attention(
    tower: nn.Module, layers: str, layer: int, attention: str
) -> MMEncoderAttention:
    """Return the attention module of a tower's layer.

    Args:
        tower: vLLM's vision model.
        layers: where its list of layers is.
        layer: index into it; -1 is the last one.
        attention: where the module is in a layer.

    Raises:
        RuntimeError: the tower has no such module.
    """
    from vllm.model_executor.layers.attention import MMEncoderAttention

    found: nn.Module
    try:
        blocks: Any = tower.get_submodule(layers)
        found = blocks[layer].get_submodule(attention)
    except (AttributeError, IndexError):
        found = tower
    if not isinstance(found, MMEncoderAttention):
        raise RuntimeError(
            f"vtprune: {type(tower).__name__} has no MMEncoderAttention at "
            f"{layers}[{layer}].{attention} as it has in vLLM {SUPPORTED}"
        )
    return found


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
