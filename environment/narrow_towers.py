"""vLLM's own towers of DeepSeek-OCR, as narrow as the demo's: their sizes are written in vLLM's
code, and a CPU needs a minute for a page of the published ones."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn
from transformers import CLIPVisionConfig
from vllm.model_executor.models import deepseek_ocr
from vllm.model_executor.models.deepencoder import ImageEncoderViT

__all__ = ["narrow_deepseek_ocr"]

_WIDTH, _LAYERS, _SAM_LAYERS, _GLOBAL = 128, 4, 2, (1,)
_CLIP = {"hidden_size": _WIDTH, "intermediate_size": 2 * _WIDTH, "num_attention_heads": 2}


def _sam() -> ImageEncoderViT:
    """As vLLM's `_build_sam`, but for width, depth and which layers have no windows."""
    return ImageEncoderViT(
        depth=_SAM_LAYERS,
        embed_dim=_WIDTH,
        img_size=1024,
        mlp_ratio=4,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_heads=2,
        patch_size=16,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=_GLOBAL,
        window_size=14,
        out_chans=256,
        last_conv_output=_WIDTH,
    )


def _clip(**published: Any) -> CLIPVisionConfig:
    return CLIPVisionConfig(**{**published, **_CLIP, "num_hidden_layers": _LAYERS})


def narrow_deepseek_ocr() -> None:
    """Have vLLM build these. Safe to call again."""
    deepseek_ocr.build_sam_vit_b = _sam
    deepseek_ocr.CLIPVisionConfig = _clip
