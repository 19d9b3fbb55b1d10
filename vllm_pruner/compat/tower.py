"""Modules inside vLLM's vision towers: CLIP, SigLIP, SigLIP2, InternViT, Idefics3, MiniCPM-V,
Molmo2, Llama 4, Pixtral, MoonViT, MiniMax-M3, RADIO, ERNIE-4.5-VL, DeepSeek-V4, DeepSeek-OCR,
dots.ocr, Step and Qwen-VL.

Replaces: nothing.
Why: methods read query and key of a layer, and shrunk images need other position embeddings; vLLM's
interfaces expose only a tower's output.
Relies on: each layer having an `MMEncoderAttention` with `num_heads` (of this rank) and `scale`:
- CLIP, SigLIP: at `vision_model.encoder.layers[i].self_attn.attn`, called with query, key and value
  of `[images, tokens, heads * size]` each; the tower is built only up to the feature layer;
- DeepSeek-OCR's CLIP: at `transformer.layers[i].self_attn.attn`, called likewise, the class token
  first; its `forward` takes SAM's output in place of its patch embedding's, and returns both kinds
  of rows;
- PaddleOCR-VL's and Keye-VL's SigLIP: at the same place, called as Qwen-VL's;
- SigLIP2: at the same place, called as Qwen-VL's; the tower takes packed patches, and sizes on the
  CPU;
- InternViT: at `encoder.layers[i].attn.attn` (`encoder.layer[i].attention.attn` in the transformers
  form), called likewise;
- Idefics3, MiniCPM-V: at `encoder.layers[i].self_attn.attn`, called likewise, but not if the tower
  is given an attention mask;
- Molmo2: at `transformer.resblocks[i].attention.attn`, called likewise; the tower is built only up
  to the last layer whose output is taken;
- Step3-VL-10B: at `transformer.resblocks[i].attn.attn`, called likewise, after rotary positions are
  applied; its `forward` returns tokens, which `vit_downsampler1` and `vit_downsampler2` make of the
  patches behind `ln_post`, a class token cut off;
- RADIO: at `model.encoder.layers[i].attn.attn`, called likewise, but with the tokens of all
  pictures of a call in one sequence, of each `model.patch_generator.num_skip` of the tower's own
  before its patches, of which the first `num_cls_tokens` are summaries; its `forward` takes the
  patches that `im_to_patches` cuts, in raster order, and the pictures' sizes, and returns patches
  alone, in that order;
- Llama 4: at `model.layers[i].self_attn.attn`, called likewise, the class token last, after rotary
  positions are applied; its `forward` returns tokens, which `vision_adapter` makes of the patches;
- Qwen-VL, ERNIE-4.5-VL, dots.ocr: at `blocks[i].attn.attn`, called with keywords `query` and `key`
  of `[1, patches, heads, size]`, after rotary positions are applied;
- Pixtral in both forms: at `transformer.layers[i].attention.attn`, called with the same as
  positional arguments;
- DeepSeek-V4: at `blocks[i].attn.attn`, called likewise, of a tower whose `forward_packed` takes
  what `build_packed_vit_metadata` makes of sizes in patches;
- MoonViT: at `encoder.blocks[i].attn`, called likewise; its `forward` takes what
  `prepare_encoder_metadata` makes of grids in place of these, and returns `[tokens, patches of a
  token, D]`, MoonViT3d's, whose encoder has that method, one for each image;
- MiniMax-M3: at `vision_model.encoder.layers[i].self_attn.attn`, called as Qwen-VL's; the tower
  takes what its `vision_model.prepare_encoder_metadata` makes of grids in place of these;
on what the last layer makes of the patches, `[..., patches, D]`, going as the only argument through
`merger.ln_q` (Qwen2-VL, Qwen2.5-VL), `merger.norm` (Qwen3-VL), `post_layernorm` (GLM-V, Idefics3,
MiniCPM-V, SigLIP, SigLIP2; GLM-5-Next), `layernorm_post` (Llama 4, the class token among them),
`layernorm` (InternViT in the transformers form), `ln` (ERNIE-4.5-VL), `norm` (DeepSeek-V4),
`ln_post` (Step3-VL-10B, a class token among them), `post_trunk_norm` (dots.ocr, or its
`merger.ln_q` if it has none) or `encoder.final_layernorm` (MoonViT), or being what the tower
returns (InternViT, MiniMax-M3's `vision_model`, Pixtral), its `model.encoder` (RADIO) or its
`transformer` (LightOnOCR's Pixtral), whose layers cannot be hooked: they are decorated for
`torch.compile`, as are those of Qwen-VL and SigLIP2;
and on all of `vision_model.embeddings.position_embedding` being looked up and added to the patches
whatever the image's size. vLLM's SigLIP has an `interpolate_pos_encoding`, but that takes the width
for the number of positions.
vLLM versions: 0.31 to 0.33.
Goes when: CLIP and SigLIP interpolate, and attention can be observed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm_pruner.compat.versions import SUPPORTED

if TYPE_CHECKING:
    from torch import nn
    from vllm.model_executor.layers.attention import MMEncoderAttention

__all__ = ["last_norm", "module_of_layer", "position_embedding", "tower_attention"]


def tower_attention(
    tower: nn.Module, layers: str, layer: int, attention: str
) -> MMEncoderAttention:
    """Return the attention module of a tower's layer.

    Args:
        tower: vLLM's vision model.
        layers: path of its list of layers.
        layer: index into that list; -1 is the last one.
        attention: path of the attention module in a layer.

    Raises:
        RuntimeError: the tower has no such module.
    """
    from vllm.model_executor.layers.attention import MMEncoderAttention

    found = module_of_layer(MMEncoderAttention, tower, layers, layer, attention)
    assert isinstance(found, MMEncoderAttention)
    return found


def module_of_layer(
    kind: type[nn.Module], tower: nn.Module, layers: str, layer: int, path: str
) -> nn.Module:
    """Return the module of a `kind` at a path in a tower's layer; see `tower_attention`.

    Raises:
        RuntimeError: the tower has no such module.
    """
    found: nn.Module
    try:
        blocks: Any = tower.get_submodule(layers)
        found = blocks[layer].get_submodule(path)
    except (AttributeError, IndexError):
        found = tower
    if not isinstance(found, kind):
        raise RuntimeError(
            f"vtprune: {type(tower).__name__} has no {kind.__name__} at "
            f"{layers}[{layer}].{path} as it has in vLLM {SUPPORTED}"
        )
    return found


def last_norm(tower: nn.Module, *paths: str) -> nn.Module:
    """Return the first module of these that a tower has; an empty path is the tower's own.

    Raises:
        RuntimeError: the tower has none of them.
    """
    for path in paths:
        try:
            return tower.get_submodule(path)
        except AttributeError:
            continue
    raise RuntimeError(
        f"vtprune: {type(tower).__name__} has no {' or '.join(paths)} as it has in vLLM {SUPPORTED}"
    )


def position_embedding(tower: nn.Module) -> nn.Embedding:
    """Return a tower's learned position embedding, with a weight `[positions, D]`: a class token's
    first, then the patches' in raster order. For another grid its output must be replaced.

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
