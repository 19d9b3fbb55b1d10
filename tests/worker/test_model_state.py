"""What vLLM's V2 runner, which is for GPUs, feeds decoders with M-RoPE of a pruned prompt: rows,
positions and, of Qwen4-Exp, ids and their n-grams. Its own states of these models run on a CPU, the
decoders do not. Stock vLLM beside them fed the whole prompt in one step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from beside_stock import Side, Stock
from pruned_model import pruned_model, stock_model
from v2_runner import Fed, Runner, on_a_cpu
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    PlaceholderRange,
)

pytestmark = pytest.mark.slow

LEVELS = "demo-qwen4 with DeepStack"
"""Which none is published with: drawn at random."""

STATES = {
    "demo-qwen4": "Qwen4ExpModelState",
    LEVELS: "Qwen4ExpModelState",
    "demo-qwen3.5": "MambaHybridModelState",
    "demo-qwen3": "DefaultModelState",
    "demo-qwen2.5": "DefaultModelState",
    "demo-glm4v": "DefaultModelState",
    "demo-qwen3-omni": "DefaultModelState",
}
MESSAGES = {"pictures": ["image", "image"], "a video": ["image", "video"]}
SETTINGS: list[dict[str, Any]] = [{"rate": 0.6}, {"tokens": 2}]
STEPS = (4096, 37, 7)


@dataclass
class Pair:
    """A model, and what the stock one is fed of each message."""

    name: str
    whole: dict[str, Any]
    stock: dict[str, Fed]
    answers: dict[str, torch.Tensor]
    ours: Side

    def pruned(self, settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, list[int]]]:
        """The prompts, and which of the unpruned one's tokens each has."""
        outputs = {name: self.ours.prompt(kinds, settings) for name, kinds in MESSAGES.items()}
        at = {}
        for name, output in outputs.items():
            _, chosen = self.ours.rows(output)
            at[name] = Stock(self.whole[name], {}, None).at(output, chosen)
        return outputs, at


@pytest.fixture(scope="module", params=STATES)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    checkpoint, _, levels = request.param.partition(" with ")
    flags: dict[str, Any] = {"dtype": "float32", "enforce_eager": True}
    if levels:
        flags["hf_overrides"] = {"vision_config": {"deepstack_visual_indexes": [0, 2]}}
        flags["load_format"] = "dummy"
    with on_a_cpu():
        with stock_model(checkpoint, **flags) as (config, model):
            _draw(model.visual, bool(levels))
            runner, side = Runner(Side(config, model)), Side(config, model)
            whole = {name: side.prompt(kinds) for name, kinds in MESSAGES.items()}
            stock = runner.feed(whole, 4096)
            answers = {name: runner.answer(name) for name in whole}
        with pruned_model(checkpoint, {}, **flags) as (config, model):
            _draw(model.visual, bool(levels))
            ours = Side(config, model)
            model.on_selection = lambda _tokens, index, _layout: ours.chosen.extend(index.tolist())
            yield Pair(request.param, whole, stock, answers, ours)


def test_the_state_is_vllms_own(pair: Pair) -> None:
    assert type(Runner(pair.ours).state).__name__ == STATES[pair.name]
    stock, width = pair.stock["pictures"], pair.ours.config.model_config.get_hidden_size()
    assert (stock.ngrams is not None) == pair.name.startswith("demo-qwen4")
    levels = {LEVELS: 2, "demo-qwen3": 3, "demo-qwen3-omni": 3}.get(pair.name, 0)
    assert stock.rows is not None and stock.rows.shape[1] == width * (1 + levels)


@pytest.mark.parametrize("most", STEPS)
def test_rate_0_is_stock_bit_for_bit(pair: Pair, most: int) -> None:
    outputs, _ = pair.pruned({"rate": 0.0})
    for name, found in Runner(pair.ours).feed(outputs, most).items():
        assert found.ids.tolist() == pair.whole[name]["prompt_token_ids"]
        for one, other in zip(_parts(found), _parts(pair.stock[name]), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("most", STEPS)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_pruned_prompt_is_fed_as_it_stands_unpruned(
    pair: Pair, settings: dict[str, Any], most: int
) -> None:
    """Of two requests in each step, and what is answered behind them."""
    (outputs, at), runner = pair.pruned(settings), Runner(pair.ours)
    for name, found in runner.feed(outputs, most).items():
        assert found.ids.tolist() == list(outputs[name]["prompt_token_ids"])
        _equal_from(0, found, pair.stock[name], at[name])
        assert torch.equal(runner.answer(name), pair.answers[name])


@pytest.mark.parametrize("known", [9, 16, 32])
def test_what_follows_a_hit_of_the_prefix_cache_is_fed_alike(pair: Pair, known: int) -> None:
    """Within a picture and behind it."""
    (outputs, at), runner = pair.pruned({"rate": 0.6}), Runner(pair.ours)
    whole = Runner(pair.ours).feed(outputs, 4096)
    for name, found in runner.feed(outputs, 7, known).items():
        _equal_from(known, found, pair.stock[name], at[name])
        if whole[name].ngrams is not None:
            assert torch.equal(found.ngrams, whole[name].ngrams[known:])
        assert torch.equal(runner.answer(name), pair.answers[name])


def test_embeddings_that_a_client_sends_beside_pictures_are_fed_as_its_text(pair: Pair) -> None:
    """What `--enable-prompt-embeds` has in place of text, here the text's own. vLLM takes none in
    other states of models, and fails where rows have levels, stock as well."""
    if STATES[pair.name] != "DefaultModelState" or _has_levels(pair):
        pytest.skip("stock vLLM serves none here")
    outputs, at = pair.pruned({"rate": 0.6})
    sent = {name: _with_prompt_embeds(pair, output) for name, output in outputs.items()}
    for most in STEPS:
        runner = Runner(pair.ours)
        for name, found in runner.feed(sent, most).items():
            _equal_from(0, found, pair.stock[name], at[name])
            assert torch.equal(runner.answer(name), pair.answers[name])


def test_ngrams_are_those_of_the_shorter_prompt_in_steps_of_any_size(pair: Pair) -> None:
    """Text has those that it has unpruned, if two tokens before it or more are kept."""
    outputs, at = pair.pruned({"tokens": 2})
    alone = {most: Runner(pair.ours).feed(outputs, most) for most in STEPS}
    for name, first in alone[4096].items():
        if first.ngrams is None:
            assert not pair.name.startswith("demo-qwen4")
            continue
        assert all(torch.equal(alone[most][name].ngrams, first.ngrams) for most in STEPS)
        marks = torch.tensor([pair.ours.config.model_config.hf_config.image_token_id])
        text, kept = ~torch.isin(first.ids, marks), torch.tensor(at[name])
        if name == "pictures":
            assert torch.equal(first.ngrams[text], pair.stock[name].ngrams[kept][text])
        assert len(first.ngrams.unique(dim=0)) > 4


def _has_levels(pair: Pair) -> bool:
    rows = pair.stock["pictures"].rows
    assert rows is not None
    return rows.shape[1] > pair.ours.config.model_config.get_hidden_size()


def _with_prompt_embeds(pair: Pair, output: dict[str, Any]) -> dict[str, Any]:
    """The prompt as vLLM renders it where its first and last two tokens are sent as embeddings."""
    ids = torch.tensor(output["prompt_token_ids"])
    spans = [range(2), range(len(ids) - 2, len(ids))]
    field = MultiModalBatchedField()
    rows = [pair.ours.model.get_language_model().embed_input_ids(ids[[*span]]) for span in spans]
    items = [MultiModalKwargsItem({"embedding": MultiModalFieldElem(each, field)}) for each in rows]
    places = [PlaceholderRange(span.start, len(span)) for span in spans]
    return {
        **output,
        "mm_kwargs": {**output["mm_kwargs"], "prompt_embeds": items},
        "mm_placeholders": {**output["mm_placeholders"], "prompt_embeds": places},
    }


def _draw(tower: torch.nn.Module, anew: bool) -> None:
    """Draw a tower's weights, the same each time, if there are none."""
    generator = torch.Generator().manual_seed(0)
    for weight in tower.parameters() if anew else ():
        weight.data.normal_(std=0.2, generator=generator)


def _parts(fed: Fed) -> list[torch.Tensor]:
    return [each for each in (fed.rows, fed.positions, fed.ngrams) if each is not None]


def _equal_from(known: int, found: Fed, stock: Fed, at: list[int]) -> None:
    """Rows and positions are those of stock at these places."""
    places = at[known:]
    assert found.rows is not None and stock.rows is not None
    torch.testing.assert_close(found.rows, stock.rows[places])
    assert found.positions is not None and stock.positions is not None
    assert torch.equal(found.positions, stock.positions[places])
