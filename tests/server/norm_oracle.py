"""The norms of a picture's tokens in front of the merger, by `transformers`."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from vllm_process import MODELS
from window_order import in_raster

__all__ = ["last_norms"]


@torch.no_grad()
def last_norms(checkpoint: str, picture: Image.Image) -> list[float]:
    """Return the norms of what the tower's last layer makes of the patches of each token, added up,
    in raster order."""
    folder = MODELS / checkpoint
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()
    processor: Any = AutoProcessor.from_pretrained(folder).image_processor
    inputs, visual = processor(images=[picture], return_tensors="pt"), model.model.visual
    seen: list[torch.Tensor] = []
    visual.blocks[-1].register_forward_hook(lambda _, args, output: seen.append(output))
    visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
    tokens = seen[0].norm(dim=-1).unflatten(0, (-1, 4)).sum(dim=1)
    return in_raster(tokens, visual, inputs["image_grid_thw"]).tolist()
