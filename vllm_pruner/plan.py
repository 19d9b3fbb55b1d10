"""The plan for one image or video: its settings, its identity and the text that asks about it.

The processor, which sees the whole prompt, makes the plan; it travels to the model in fields of the
item. vLLM's multimodal fields are tensors; these stay on the CPU (`keep_on_cpu`), so that reading
them needs no device sync.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from vllm_pruner import methods
from vllm_pruner.layout.joined_frames import Between
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.keys import (
    KEY,
    PLAN_BETWEEN,
    PLAN_IMAGE,
    PLAN_KEEP,
    PLAN_SETTINGS,
    PLAN_TEXT,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "ASK_COVERAGE",
    "ASK_FAULTS",
    "EXPECT_ASKING",
    "FIELDS",
    "FOREIGN",
    "WATCH",
    "ImagePlan",
    "foreign_prefix",
]

FIELDS = (PLAN_SETTINGS, PLAN_IMAGE, PLAN_TEXT, PLAN_KEEP, PLAN_BETWEEN)
"""Names of a plan's fields."""


FOREIGN = f"{KEY}-foreign".encode().hex()
"""Prefix of the identities of images whose method another package provides. Hexadecimal, as all
identities are, because LMCache reads them as numbers."""


EXPECT_ASKING, ASK_FAULTS = f"{KEY}_expect_asking", f"{KEY}_ask_faults"
"""Names of worker methods (`worker.guard`) that `prompt.faults` calls."""

WATCH, ASK_COVERAGE = f"{KEY}_watch", f"{KEY}_ask_coverage"
"""Names of worker methods (`worker.coverage`) that `prompt.coverage` calls."""


def foreign_prefix(method: str) -> str:
    """Return the prefix of the identities of images under a method of another package."""
    return f"{FOREIGN}{hashlib.blake2b(method.encode(), digest_size=8).hexdigest()}"


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """The plan of one image; a video's plan is the same."""

    ANONYMOUS: ClassVar[str] = ""
    """Identity of vLLM's dummy images. The memory profile encodes many identical ones, which must
    not hit a cache."""

    config: PruneConfig

    image: str
    """vLLM's identity of the image without a plan: a hash of its content, or the client's name."""

    text: tuple[int, ...] = ()
    """Token ids that ask about the image in its message; empty unless the method needs them."""

    keep: int = 0
    """Visual tokens that have placeholders in the prompt; 0 to compute it from the settings. It is
    stored because a method of another package may return another count when asked again."""

    between: Between = ()
    """Of a video whose frames are joined (`Videos.joins`): what is between them, which has
    placeholders too."""

    @property
    def others(self) -> int:
        """The number of tokens in `between`."""
        return sum(map(len, self.between))

    def kept_of(self, tokens: int) -> int:
        """Return how many of the image's `tokens` tokens are kept."""
        return self.keep or self.config.keep_count(tokens)

    @property
    def identity(self) -> str:
        """Identity of the image under this plan, by which vLLM caches its encoder output and KV.

        An unpruned image has the same identity as without a plan. If another package provides the
        method, the prefix names the method, so that the API server knows to ask for its faults
        before it answers. What is `between` frames is part of it, because the prompt's tokens do
        not tell one time from another.
        """
        if self.config.off:
            return self.image
        text = ",".join(map(str, self.text))
        plan = f"{self.image}\n{self.config.canonical()}\n{text}"
        if self.package is not None:
            plan += f"\n{self.keep}"
        if self.between:
            plan += f"\n{self.between}"
        digest = hashlib.blake2b(plan.encode(), digest_size=32).hexdigest()
        return digest if self.package is None else foreign_prefix(self.config.method) + digest

    @property
    def package(self) -> str | None:
        """The other package that provides the image's method; None if it is built in or nothing is
        pruned."""
        return None if self.config.off else methods.package_of(self.config.method)

    def fields(self) -> dict[str, torch.Tensor]:
        """Return the plan as tensors, by field name."""
        return {
            PLAN_SETTINGS: _shared(self.config.canonical()),
            PLAN_IMAGE: _to_tensor(self.image),
            PLAN_TEXT: torch.tensor(self.text, dtype=torch.int64),
            PLAN_KEEP: torch.tensor([self.keep]),
            PLAN_BETWEEN: _to_rows(self.between),
        }

    @classmethod
    def of_item(cls, item: Mapping[str, Any]) -> ImagePlan:
        """Return the plan in the fields of one image or video."""
        (plan,) = cls.pop_all({name: [item[name]] for name in FIELDS})
        return plan

    @classmethod
    def pop_all(cls, fields: dict[str, Any]) -> list[ImagePlan]:
        """Remove the plans of a batch from the model's keyword arguments.

        Returns:
            One for each image; empty if the images have none.
        """
        columns = [_arrays(fields.pop(name, ())) for name in FIELDS]
        return [
            cls(
                PruneConfig.from_canonical(_to_text(config)),
                _to_text(image),
                tuple(text.tolist()),
                keep.item(),
                _of_rows(between),
            )
            for config, image, text, keep, between in zip(*columns, strict=True)
        ]


def _to_tensor(text: str) -> torch.Tensor:
    data = bytearray(text.encode())
    return torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


@lru_cache(maxsize=256)
def _shared(text: str) -> torch.Tensor:
    """Return a text that many plans have, as one tensor, which nobody writes to."""
    return _to_tensor(text)


def _arrays(column: torch.Tensor | Sequence[torch.Tensor]) -> Iterable[NDArray[Any]]:
    """Return the part of each image in a field, which vLLM stacks where shapes are equal."""
    return column.numpy() if isinstance(column, torch.Tensor) else [it.numpy() for it in column]


def _to_text(array: NDArray[np.uint8]) -> str:
    return array.tobytes().decode()


def _to_rows(between: Between) -> torch.Tensor:
    rows = [(token, frame) for frame, text in enumerate(between) for token in text]
    return torch.tensor(rows, dtype=torch.int64).view(-1, 2)


def _of_rows(rows: NDArray[np.int64]) -> Between:
    texts = groupby(rows.tolist(), itemgetter(1))
    return tuple(tuple(token for token, _ in text) for _, text in texts)
