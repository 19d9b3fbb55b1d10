"""What vLLM's processor and model make of a message without an engine, stock or pruning: prompt,
rows and positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from contract import batched
from PIL import Image
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFeatureSpec

__all__ = ["ITEMS", "PICTURES", "Rows", "Side", "Stock"]

_NOISE = np.random.default_rng(0)
PICTURES = [
    Image.fromarray(_NOISE.integers(0, 256, (*size, 3), np.uint8))
    for size in ((224, 336), (420, 120))
]
_FACTS = {"fps": 2.0, "total_num_frames": 6, "duration": 3.0, "do_sample_frames": False}
_FACTS["frames_indices"] = [0, 1, 2, 3, 4, 5]
_CLIP = (_NOISE.integers(0, 256, (6, 112, 112, 3), np.uint8), _FACTS)
_SOUNDS = [(_NOISE.standard_normal(length).astype(np.float32), 16000) for length in (40000, 9000)]
ITEMS: dict[str, list[Any]] = {"image": PICTURES, "video": [_CLIP], "audio": _SOUNDS}

Rows = dict[str, list[torch.Tensor]]
"""What the decoder gets of each item, by modality."""


@dataclass
class Side:
    """One of the two, stock or pruning."""

    config: Any
    model: Any
    chosen: list[list[int]] = field(default_factory=list)
    """What was kept of each item of the last batch; filled by the test."""

    def __post_init__(self) -> None:
        self.processor = MULTIMODAL_REGISTRY.create_processor(self.config.model_config)

    def prompt(
        self,
        kinds: Sequence[str],
        settings: dict[str, Any] | None = None,
        silent: Sequence[str] = (),
        **kwargs: Any,
    ) -> Any:
        """What the engine gets of a message.

        Args:
            kinds: the modality of each item in it, in order.
            settings: of the request.
            silent: the same of items that have no place of their own in the message.
            kwargs: the request's arguments for HF's processor.
        """
        info = self.processor.info
        content = [each for kind in kinds for each in ({"type": kind}, _SO)]
        template: Any = info.get_tokenizer().apply_chat_template
        prompt = template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        sent = [*kinds, *silent]
        data = {kind: ITEMS[kind][: sent.count(kind)] for kind in sent}
        own = {"vtprune": settings} if settings else {}
        return self.processor(
            prompt, info.parse_mm_data(data), hf_processor_mm_kwargs={**own, **kwargs}
        )

    def rows(self, output: Any) -> tuple[Rows, dict[str, list[list[int]]]]:
        """What the decoder gets of a prompt, each modality in one batch, and what is kept."""
        rows, chosen = {}, {}
        for kind, items in output["mm_kwargs"].items():
            self.chosen.clear()
            with torch.inference_mode():
                rows[kind] = list(self.model.embed_multimodal(**batched(items)))
            chosen[kind] = [*self.chosen]
        return rows, chosen

    def positions(self, output: Any, rows: Rows | None = None, step: int = 4096) -> Any:
        """Of all tokens of a prompt, once the decoder was fed these rows, in steps of so many
        tokens; and the offset behind."""
        ids, placed = output["prompt_token_ids"], _placed(output)
        features = [
            MultiModalFeatureSpec(output["mm_kwargs"][kind][n], kind, f"{kind} {n}", place)
            for place, kind, n in placed
        ]
        positions, delta = self.model.get_mrope_input_positions(ids, features)
        for start in range(0, len(ids), step) if rows is not None else ():
            fed = []
            for place, kind, n in placed:
                inside = [
                    min(max(at - place.offset, 0), place.length) for at in (start, start + step)
                ]
                first, end = place.get_embeds_indices_in_range(*inside)
                fed += [(rows or {})[kind][n][first:end]] if first < end else []
            _, positions, delta = self.model.recompute_mrope_positions(ids, fed, positions, start)
        return positions, delta


_SO = {"type": "text", "text": "So?"}


def _placed(output: Any) -> list[tuple[Any, str, int]]:
    """The place of each item of a prompt in order, its modality and its number."""
    places = output["mm_placeholders"].items()
    each = [(place, kind, n) for kind, those in places for n, place in enumerate(those)]
    return sorted(each, key=lambda one: one[0].offset)


@dataclass
class Stock:
    """What stock vLLM made of a message."""

    output: Any
    rows: Rows
    positions: Any
    """None where they are plain."""

    def at(self, pruned: Any, chosen: dict[str, list[list[int]]]) -> list[int]:
        """Where each token of a pruned prompt stands in this one."""
        ids, at, start = self.output["prompt_token_ids"], [], 0
        for place, kind, n in _placed(self.output):
            if not chosen[kind] or place.offset < start:  # whole, or a video's audio
                continue
            embeds = place.is_embed
            visual = torch.ones(place.length, dtype=torch.bool) if embeds is None else embeds
            stays = ~visual
            stays[visual.nonzero().flatten()[torch.tensor(chosen[kind][n])]] = True
            at += range(start, place.offset)
            at += (place.offset + stays.nonzero().flatten()).tolist()
            start = place.offset + place.length
        at += range(start, len(ids))
        assert [ids[i] for i in at] == pruned["prompt_token_ids"]
        return at
