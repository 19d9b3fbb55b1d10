"""What to do with one image: its settings, its identity and the text that asks about it.

Made by the processor, which sees the whole prompt, and carried to the model as fields of the image.
vLLM's multimodal fields carry tensors; these stay on the CPU (`keep_on_cpu`), so that reading them
does not make the model wait for the device.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.keys import PLAN_IMAGE, PLAN_SETTINGS, PLAN_TEXT

__all__ = ["FIELDS", "ImagePlan"]

FIELDS = (PLAN_SETTINGS, PLAN_IMAGE, PLAN_TEXT)
"""Names of the fields."""


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """The plan of one image."""

    ANONYMOUS: ClassVar[str] = ""
    """Identity of vLLM's dummy images. Its memory profile encodes many identical ones, so they must
    not be found in a cache."""

    config: PruneConfig

    image: str
    """vLLM's identity of the image without a plan: a hash of its content, or the client's own."""

    text: tuple[int, ...] = ()
    """Token ids that follow the image in its message; empty unless the method asks for them."""

    @property
    def identity(self) -> str:
        """Identity of the image under this plan, by which vLLM caches its encoder output and KV.

        An unpruned image has the same one as without a plan.
        """
        if self.config.off:
            return self.image
        text = ",".join(map(str, self.text))
        plan = f"{self.image}\n{self.config.canonical()}\n{text}"
        return hashlib.blake2b(plan.encode(), digest_size=32).hexdigest()

    def fields(self) -> dict[str, torch.Tensor]:
        """Return the plan as tensors, by field name."""
        return {
            PLAN_SETTINGS: _to_tensor(self.config.canonical()),
            PLAN_IMAGE: _to_tensor(self.image),
            PLAN_TEXT: torch.tensor(self.text, dtype=torch.int64),
        }

    @classmethod
    def pop_all(cls, fields: dict[str, Any]) -> list[ImagePlan]:
        """Remove the plans of a batch from the model's keyword arguments.

        Returns:
            One for each image; empty if the images have none.
        """
        columns = [fields.pop(name, ()) for name in FIELDS]
        return [
            cls(PruneConfig.from_canonical(_to_text(config)), _to_text(image), tuple(text.tolist()))
            for config, image, text in zip(*columns, strict=True)
        ]


def _to_tensor(text: str) -> torch.Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def _to_text(tensor: torch.Tensor) -> str:
    return bytes(tensor.tolist()).decode()
