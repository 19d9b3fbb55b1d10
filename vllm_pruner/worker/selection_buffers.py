"""The memory that captured selections read: one buffer a field, shared by all graphs."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import accumulate
from typing import Any

import torch

from vllm_pruner.methods.base import VisualTokens
from vllm_pruner.methods.on_device import on_device
from vllm_pruner.methods.ragged import Ragged
from vllm_pruner.methods.texts import Texts
from vllm_pruner.worker.selection_shapes import MOST_WORDS, Shape

__all__ = ["SelectionBuffers"]


class SelectionBuffers:
    """Buffers that each graph sees as the tokens of its own shape, from their beginning."""

    def __init__(self, tokens: VisualTokens, shapes: list[Shape]) -> None:
        """Allocate them.

        Args:
            tokens: the tokens of one image, `[1, N, ...]`, with what the method reads.
            shapes: the shapes of all graphs.
        """
        rows = max(shape.images * shape.tokens for shape in shapes)
        self._template = tokens
        self._rows = {
            name: value.new_zeros(rows, *value.shape[2:]) for name, value in _columns(tokens)
        }
        images = max(shape.images for shape in shapes)
        # Lengths and budgets of unequal images.
        self._sizes = torch.zeros(2, images, dtype=torch.int64, device=tokens.features.device)
        self._texts: Texts | None = None
        if tokens.text is not None:
            words = tokens.text[0].new_zeros(images * MOST_WORDS, tokens.text[0].shape[1])
            self._texts = Texts(words, self._sizes.new_zeros(images + 1), MOST_WORDS)
        self._views = {shape: self._view(shape) for shape in shapes}

    def of(self, shape: Shape) -> VisualTokens:
        """Return the buffers as the tokens of a shape; they are views, the same at each call."""
        return self._views[shape]

    def _view(self, shape: Shape) -> VisualTokens:
        used = shape.images * shape.tokens
        columns: dict[str, Any] = {
            name: rows[:used].view(shape.images, shape.tokens, *rows.shape[1:])
            for name, rows in self._rows.items()
        }
        tokens = replace(self._template, **columns, text=self._texts_of(shape))
        if shape.least is None:
            return tokens
        lengths, keeps = self._sizes[:, : shape.images]
        return replace(tokens, grid=None, ragged=Ragged(lengths, keeps, shape.least))

    def fill(self, shape: Shape, tokens: VisualTokens, keep: int) -> None:
        """Copy tokens to where the graph of a shape reads them. Padding keeps what was there.

        Args:
            shape: a shape that holds the tokens.
            tokens: the tokens of some images.
            keep: what they keep, unless `tokens.ragged` says so for each.
        """
        images, length = tokens.features.shape[:2]
        buffers = self.of(shape)
        for name in self._rows:
            getattr(buffers, name)[:images, :length].copy_(getattr(tokens, name))
        if isinstance(texts := buffers.text, Texts):
            assert isinstance(tokens.text, Texts)
            texts.rows[: len(tokens.text.rows)].copy_(tokens.text.rows)
            texts.ends[: images + 1].copy_(tokens.text.ends)
            texts.ends[images + 1 :] = texts.ends[images]  # the rest has none
        if shape.least is None:
            return
        here, rest = self._sizes.split([images, self._sizes.shape[1] - images], dim=1)
        rest.zero_()
        if (ragged := tokens.ragged) is None:
            here[0].fill_(length)
            here[1].fill_(keep)
        else:
            here[0].copy_(ragged.lengths)
            here[1].copy_(ragged.keeps)

    def draw(self, shape: Shape, seed: int) -> None:
        """Fill the buffers of a shape with noise, of lengths and budgets that all differ."""
        buffers = self.of(shape)
        for _, value in _columns(buffers):
            value.uniform_(generator=torch.Generator(value.device).manual_seed(seed))
        if isinstance(texts := buffers.text, Texts):
            texts.rows.uniform_(generator=torch.Generator(texts.rows.device).manual_seed(seed))
            words = [(seed + image) % 4 * MOST_WORDS // 4 for image in range(shape.images)]
            texts.ends.copy_(on_device([0, *accumulate(words)], texts.ends.device))
        if shape.least is None:
            return
        parts = [(seed + image + 1) % 5 / 8 for image in range(self._sizes.shape[1])]
        lengths = [shape.tokens - int(shape.tokens * part) for part in parts]
        keeps = [shape.keep - int((shape.keep - shape.least) * part) for part in parts]
        keeps = [min(pair) for pair in zip(lengths, keeps, strict=True)]
        self._sizes.copy_(on_device([lengths, keeps], self._sizes.device))

    def _texts_of(self, shape: Shape) -> Texts | None:
        """Return the texts of a shape's images, as views; None if the method reads none."""
        if (texts := self._texts) is None:
            return None
        rows = texts.rows[: shape.images * MOST_WORDS]
        return replace(texts, rows=rows, ends=texts.ends[: shape.images + 1])


def _columns(tokens: VisualTokens) -> list[tuple[str, torch.Tensor]]:
    """Return the fields that hold a tensor, with their names."""
    named = ((field.name, getattr(tokens, field.name)) for field in fields(tokens))
    return [(name, value) for name, value in named if isinstance(value, torch.Tensor)]
