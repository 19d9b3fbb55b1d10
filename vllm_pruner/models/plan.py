"""What is to happen to one image: its settings, and the text that asks about it.

Made in the processor, where the whole prompt is known, and carried to the model as fields of the
image. vLLM's multimodal fields carry tensors; ours stay on the CPU (`keep_on_cpu`), so that reading
them does not make the model wait for the device.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch

from vllm_pruner.config import KEY, PruneConfig

__all__ = ["FIELDS", "ImagePlan"]

_TEXT = f"{KEY}_text"
FIELDS = (KEY, _TEXT)
"""Names of the fields."""


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """The plan of one image."""

    config: PruneConfig

    text: tuple[int, ...] = ()
    """Token ids that follow the image in its message; empty unless the method asks for them."""

    def identity(self, image: str) -> str:
        """vLLM's identity of the image under this plan, from that of the bare image: what its
        encoder output and KV are cached by."""
        text = ",".join(map(str, self.text))
        plan = f"{image}\n{self.config.canonical()}\n{text}"
        return hashlib.blake2b(plan.encode(), digest_size=32).hexdigest()

    def fields(self) -> dict[str, torch.Tensor]:
        """The plan as tensors, by field name."""
        canonical = bytearray(self.config.canonical().encode())
        return {
            KEY: torch.frombuffer(canonical, dtype=torch.uint8),
            _TEXT: torch.tensor(self.text, dtype=torch.int64),
        }

    @classmethod
    def pop_all(cls, fields: dict[str, Any]) -> list[ImagePlan]:
        """Take the fields of all images of a batch out of the model's keyword arguments.

        Returns:
            A plan for each image; empty if the images have none.
        """
        settings, texts = (fields.pop(name, ()) for name in FIELDS)
        return [
            cls(
                PruneConfig.from_canonical(bytes(canonical.tolist()).decode()), tuple(text.tolist())
            )
            for canonical, text in zip(settings, texts, strict=True)
        ]
