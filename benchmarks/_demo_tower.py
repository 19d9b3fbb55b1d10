"""The demo model's vision tower run by transformers, with all inputs that a method may need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor
from vtprune_kernels import cls_importance, column_importance

__all__ = ["DemoTower"]

DEMO = Path(__file__).resolve().parents[1] / "demo" / "llava"
_MIDWAY = 3 / 8
"""Share of the depth, as in `vllm_pruner.worker.probe`."""


class DemoTower:
    """Tower, projector and word embeddings of `demo/llava`, without vLLM."""

    def __init__(self) -> None:
        self._processor = LlavaProcessor.from_pretrained(DEMO)
        self._model = LlavaForConditionalGeneration.from_pretrained(DEMO, dtype=torch.float32)
        vision = self._model.model.vision_tower
        vision = getattr(vision, "vision_model", vision)
        self._heads = vision.config.num_attention_heads
        self._grid = (vision.config.image_size // vision.config.patch_size,) * 2
        layers = vision.encoder.layers
        midway = max(1, round(_MIDWAY * len(layers)))
        # The features are the output of the last layer but one.
        self._layers = {"last": layers[-2].self_attn, "midway": layers[midway - 1].self_attn}

    @torch.inference_mode()
    def see(self, images: list[Image.Image], question: str) -> dict[str, Any]:
        """Return the arguments of `vllm_pruner.select` for images asked the same question."""
        pixels = self._processor.image_processor(images, return_tensors="pt")["pixel_values"]
        asked = self._processor.tokenizer(question, add_special_tokens=False, return_tensors="pt")
        read: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        handles = [
            layer.register_forward_hook(self._reader(name, read), with_kwargs=True)
            for name, layer in self._layers.items()
        ]
        seen = self._model.model.vision_tower(pixels, output_hidden_states=True)
        for handle in handles:
            handle.remove()
        features = seen.hidden_states[-2][:, 1:]
        query, key = read["last"]
        scale = (query.shape[2] // self._heads) ** -0.5
        words = self._model.get_input_embeddings()(asked["input_ids"][0])
        return {
            "features": features,
            "importance": cls_importance(query, key, self._heads, scale),
            "projected": self._model.model.multi_modal_projector(features),
            "text": [words] * len(images),
            "keys": key.unflatten(2, (self._heads, -1)).mean(dim=2)[:, 1:],
            "received": column_importance(query, key, self._heads, scale)[:, 1:],
            "received_midway": column_importance(*read["midway"], self._heads, scale)[:, 1:],
            "grid": self._grid,
        }

    @staticmethod
    def _reader(name: str, read: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> Any:
        """Return a hook that stores query and key `[images, 1 + N, width]` of a layer."""

        def look(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            read[name] = layer.q_proj(hidden), layer.k_proj(hidden)

        return look
