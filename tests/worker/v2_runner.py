"""The part of vLLM's V2 runner that is before the decoder, on a CPU: its state of a model feeds
requests side by side, in steps of any size. Its kernels run in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from beside_stock import Side
from interpreted import interpreted_kernels
from vllm.multimodal.inputs import MultiModalFeatureSpec
from vllm.multimodal.utils import strip_covered_mm_data
from vllm.v1.core.sched.output import NewRequestData
from vllm.v1.worker.gpu import buffer_utils
from vllm.v1.worker.gpu.input_batch import InputBatch, InputBuffers
from vllm.v1.worker.gpu.mm import rope
from vllm.v1.worker.gpu.mm.encoder_cache import EncoderCache
from vllm.v1.worker.gpu.model_states import init_model_state
from vllm.v1.worker.gpu.states import RequestState

__all__ = ["Fed", "Runner", "on_a_cpu"]

_CPU = torch.device("cpu")
_REQUESTS, _TOKENS = 4, 4096
_KERNELS = [(buffer_utils, "_apply_write_kernel"), (rope, "_prepare_rope_positions_kernel")]


@contextmanager
def on_a_cpu() -> Iterator[None]:
    """Have the runner's kernels interpreted and its buffers in plain memory."""
    with interpreted_kernels(_KERNELS), pytest.MonkeyPatch.context() as patch:
        patch.setattr(buffer_utils, "is_uva_available", lambda: False)
        yield


@dataclass
class Fed:
    """What a decoder was fed of a request, by token."""

    ids: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    rows: torch.Tensor | None = None
    """`[tokens, width]`, of a model with DeepStack with all levels side by side."""
    positions: torch.Tensor | None = None
    """`[tokens, 3]`."""
    ngrams: torch.Tensor | None = None
    """Where Qwen4-Exp's first layer looks its n-grams up: `[tokens, heads]`."""

    def grow(self, more: Fed) -> None:
        """Take what the next step fed."""
        for each in fields(self):
            parts = [getattr(self, each.name), getattr(more, each.name)]
            given = [part for part in parts if part is not None]
            setattr(self, each.name, torch.cat(given) if given else None)


class Runner:
    """A runner without a decoder."""

    def __init__(self, side: Side) -> None:
        self._model, self._cache = side.model, EncoderCache()
        self._requests = RequestState(_REQUESTS, _TOKENS, _TOKENS, 0, 0, _CPU)
        self.state = init_model_state(side.config, side.model, self._cache, _CPU)
        self._buffers = InputBuffers(_REQUESTS, _TOKENS, _CPU)

    def feed(self, outputs: dict[str, Any], most: int, known: int = 0) -> dict[str, Fed]:
        """Return what is fed of prompts in steps of so many tokens of each.

        Args:
            outputs: what the processor made of each request.
            most: tokens.
            known: how many of each are in the prefix cache.
        """
        for name, output in outputs.items():
            self._add(name, output, known)
        found = {name: Fed() for name in outputs}
        while left := self._left():
            self._step({name: min(most, tokens) for name, tokens in left.items()}, found)
        return found

    def answer(self, name: str) -> torch.Tensor:
        """Return the positions `[3]` of the first token behind a prompt that has been fed."""
        batch = self._batch({name: 1})
        positions: torch.Tensor = self.state.prepare_inputs(batch, self._requests)["positions"]
        return positions[:, 0].clone()

    def _add(self, name: str, output: Any, known: int) -> None:
        ids, kinds = list(output["prompt_token_ids"]), output["mm_placeholders"].items()
        features = [
            MultiModalFeatureSpec(output["mm_kwargs"][kind][n], kind, f"{name} {kind} {n}", place)
            for kind, places in kinds
            for n, place in enumerate(places)
        ]
        features.sort(key=lambda each: each.mm_position.offset)
        features = strip_covered_mm_data(features, known, uses_mrope=True)
        self._cache.add_request(name, features)
        self._requests.add_request(name, len(ids), ids, known, 1)
        data = NewRequestData(
            name, ids, features, None, None, (), known, None, prefill_token_ids=ids
        )
        self.state.add_request(self._requests.req_id_to_index[name], data)

    def _left(self) -> dict[str, int]:
        state = self._requests
        left = state.prefill_len.np - state.num_computed_tokens_np
        return {name: int(left[i]) for name, i in state.req_id_to_index.items() if left[i]}

    def _step(self, tokens: dict[str, int], found: dict[str, Fed]) -> None:
        batch = self._batch(tokens)
        features = {name: self._cache.mm_features[name] for name in tokens}
        due = {name: [n for n, it in enumerate(its) if it.data] for name, its in features.items()}
        rows: Any = self.state.prepare_inputs_embeds(due, batch, self._requests)
        inputs = self.state.prepare_inputs(batch, self._requests)
        rows = torch.cat([rows, *self._levels(len(rows))], dim=1)
        ngrams = self._ngrams(batch, inputs)
        for n, name in enumerate(batch.req_ids):
            part = slice(*batch.query_start_loc_np[n : n + 2].tolist())
            own = None if ngrams is None else ngrams[part]
            positions = inputs["positions"][:, part].T.clone()
            found[name].grow(Fed(batch.input_ids[part], rows[part].clone(), positions, own))
            index, state = self._requests.req_id_to_index[name], self._requests
            state.num_computed_tokens_np[index] += tokens[name]
            state.num_computed_prefill_tokens[index] += tokens[name]
            done = int(state.num_computed_tokens_np[index])
            state.num_computed_tokens.stage_write_elem(index, done)

    def _batch(self, tokens: dict[str, int]) -> InputBatch:
        """Return a step of so many tokens of each request."""
        state = self._requests
        state.apply_staged_writes()
        self.state.apply_staged_writes()
        index = np.array([state.req_id_to_index[name] for name in tokens])
        counts = np.array([*tokens.values()], dtype=np.int32)
        starts = np.concatenate([[0], counts.cumsum()]).astype(np.int32)
        known, all_ids = state.num_computed_tokens_np[index], state.all_token_ids.gpu
        ids = [all_ids[i, a : a + n] for i, a, n in zip(index, known, counts, strict=True)]
        return replace(
            InputBatch.make_dummy(len(index), int(counts.sum()), self._buffers),
            req_ids=[*tokens],
            idx_mapping=torch.from_numpy(index),
            idx_mapping_np=index,
            num_scheduled_tokens=counts,
            query_start_loc=torch.from_numpy(starts),
            query_start_loc_np=starts,
            num_computed_tokens_np=known,
            num_computed_prefill_tokens_np=known,
            prefill_len_np=state.prefill_len.np[index],
            input_ids=torch.cat(ids),
        )

    def _levels(self, tokens: int) -> list[torch.Tensor]:
        """Return what the decoder takes for so many tokens besides, and clear it as it does."""
        buffers = getattr(self._model, "deepstack_input_embeds", [])
        levels = [each[:tokens].clone() for each in buffers]
        for each in buffers:
            each.zero_()
        return levels

    def _ngrams(self, batch: InputBatch, inputs: dict[str, Any]) -> torch.Tensor | None:
        if "ngram_context" not in inputs:
            return None
        layers = self._model.language_model.model.layers
        table = next(layer.ple.ple_embedding for layer in layers if layer.ple is not None)
        starts, context = inputs["query_start_loc"], inputs["ngram_context"]
        found: torch.Tensor = table.compute_ngram_ids(batch.input_ids, starts, context)
        return found
