"""What a server is asked of images that it knows, on a GPU that is not there: other questions, by
methods that read them, coverage and explanations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from clip_prompt import clip_prompt
from model_on_card import as_sent, embedded, kept_of, model_on_card
from pretend_tensor import host
from pruned_model import pruned_model

from vllm_pruner.plan import ImagePlan
from vllm_pruner.worker import coverage
from vllm_pruner.worker.explain import WORKER_METHODS

pytestmark = pytest.mark.slow

READING = ("adafv", "cdpruner", "triad")
QUESTIONS = ("What is on the left?", "How many?", "")
SIZES = [(168, 224), (112, 112)]


def _asked(config: Any, method: str, question: str) -> list[Any]:
    """The same two pictures behind each question."""
    return [
        item
        for place, size in enumerate(SIZES)
        for item in clip_prompt(config, [size], (place,), {"method": method}, question)[
            "mm_kwargs"
        ]["image"]
    ]


def _plans(items: list[Any]) -> list[ImagePlan]:
    fields = [{name: it.field.reduce_data([it]) for name, it in item.items()} for item in items]
    return [plan for each in fields for plan in ImagePlan.pop_all(each)]


def test_other_questions_about_known_images() -> None:
    explain, ask = WORKER_METHODS["vtprune_explain"], coverage.WORKER_METHODS[coverage.ASK_COVERAGE]
    with pruned_model("demo", {}, dtype="float32") as (config, model):
        asked = [_asked(config, method, it) for method in READING for it in QUESTIONS]
        identities = [[plan.identity for plan in _plans(items)] for items in asked]

        def answers(on_card: bool) -> list[Any]:
            model.coverage.watch([name for names in identities for name in names])
            device = {} if on_card else {"device": None}
            return [kept_of(model, items, **device) for items in asked]

        expected = answers(on_card=False)
        explained = [explain(model, [as_sent(items[0])]) for items in asked]
        covered = [ask(model, names) for names in identities]
        assert None not in covered[0] and len({str(kept) for _, kept in expected}) > 3
        with model_on_card(config, model) as card:
            model._warm_up._is_cold = False
            embedded(model, asked[-1])  # now the pictures are known
            hits = model._encoder.cache.hits
            card.waits.clear()
            found = answers(on_card=True)
            assert not card.waits
            assert model._encoder.cache.hits - hits == len(SIZES) * len(asked)
            for ours, cpu in zip(found, expected, strict=True):
                for one, other in zip(ours, cpu, strict=True):
                    assert all(map(torch.equal, map(host, one), other))
            assert [ask(model, names) for names in identities] == covered
            assert [explain(model, [as_sent(items[0])]) for items in asked] == explained
