"""What `vllm_pruner.select` says to a call that no method could answer."""

from __future__ import annotations

import pytest
import torch

import vllm_pruner
from vllm_pruner import methods


@pytest.mark.parametrize(
    "call, sentence",
    [
        pytest.param(
            {"name": "vispruned"},
            f"method is 'vispruned'; allowed: {', '.join(methods.names())}",
            id="unknown method",
        ),
        pytest.param(
            {"ratio": 0.5},
            "options.ratio is 0.5 but vispruner has no such option; allowed: important_ratio, step",
            id="unknown option",
        ),
        pytest.param(
            {"name": "uniform", "step": 8},
            "options.step is 8 but uniform has no such option; allowed: none; "
            "method vispruner has it",
            id="option of another method",
        ),
        pytest.param(
            {"important_ratio": 1.01},
            "options.important_ratio is 1.01; it should be less than or equal to 1",
            id="ratio above 1",
        ),
        pytest.param(
            {"important_ratio": -0.5},
            "options.important_ratio is -0.5; it should be greater than or equal to 0",
            id="ratio below 0",
        ),
        pytest.param(
            {"important_ratio": float("nan")},
            "options.important_ratio is nan; it should be a finite number",
            id="ratio NaN",
        ),
        pytest.param(
            {"important_ratio": "0.5"},
            "options.important_ratio is '0.5'; it should be a valid number; "
            "write 0.5, without quotes",
            id="ratio as text",
        ),
        pytest.param(
            {"step": 0}, "options.step is 0; it should be greater than or equal to 1", id="step 0"
        ),
        pytest.param(
            {"step": 2.0}, "options.step is 2.0; it should be a valid integer", id="step as float"
        ),
        pytest.param(
            {"name": "random", "seed": 1 << 63},
            f"options.seed is {1 << 63}; it should be less than or equal to {(1 << 63) - 1}",
            id="seed of 64 bits",
        ),
        pytest.param(
            {"name": "random", "seed": True},
            "options.seed is True; it should be a valid integer",
            id="seed as bool",
        ),
        pytest.param({"keep": -1}, "keep is -1; allowed: 0 to 6", id="keep below 0"),
        pytest.param({"keep": 7}, "keep is 7; allowed: 0 to 6", id="keep above N"),
        pytest.param({"keep": 2.5}, "keep is 2.5; allowed: 0 to 6", id="keep as float"),
        pytest.param({"keep": True}, "keep is True; allowed: 0 to 6", id="keep as bool"),
        pytest.param({"keep": "3"}, "keep is '3'; allowed: 0 to 6", id="keep as text"),
        pytest.param(
            {"features": torch.ones(6)},
            "features has shape (6,); allowed: [B, N, D] or [N, D]",
            id="features of one dimension",
        ),
        pytest.param(
            {"features": torch.ones(1, 2, 6, 4)},
            "features has shape (1, 2, 6, 4); allowed: [B, N, D] or [N, D]",
            id="features of four dimensions",
        ),
        pytest.param(
            {"name": "resize"},
            "keep is 3; allowed: 6, because method 'resize' shrinks the image before there are "
            "tokens",
            id="a choice of what shrinks images",
        ),
        pytest.param(
            {"importance": None},
            "importance is missing; method 'vispruner' ranks tokens by it",
            id="importance missing",
        ),
        pytest.param(
            {"importance": torch.ones(2, 7)},
            "importance has shape (2, 7); allowed: (2, 6), one score a token",
            id="importance with the class token",
        ),
        pytest.param(
            {"features": torch.ones(6, 4), "importance": torch.ones(1, 6)},
            "importance has shape (1, 6); allowed: (6,), one score a token",
            id="importance of a batch beside one image",
        ),
        pytest.param(
            {"name": "visionzip", "keys": torch.ones(2, 7, 4)},
            "keys has shape (2, 7, 4); allowed: one row for each of 2 x 6 tokens",
            id="keys with the class token's",
        ),
        pytest.param(
            {"name": "divprune", "projected": torch.ones(6, 4)},
            "projected has shape (6, 4); allowed: one row for each of 2 x 6 tokens",
            id="projected of one image beside a batch",
        ),
        pytest.param(
            {"name": "pool", "grid": (2, 4)},
            "grid is (2, 4); allowed: rows and columns of 6 tokens",
            id="grid of other tokens",
        ),
        pytest.param(
            {"name": "adafv", "projected": torch.ones(2, 6, 8), "text": [torch.ones(3, 7)] * 2},
            "text has shapes [(3, 7), (3, 7)]; allowed: [tokens, 8] for each of 2 images",
            id="text of another width",
        ),
        pytest.param(
            {"name": "adafv", "projected": torch.ones(2, 6, 8), "text": [torch.ones(3, 8)]},
            "text has shapes [(3, 8)]; allowed: [tokens, 8] for each of 2 images",
            id="text of one image of two",
        ),
    ],
)
def test_a_bad_call_gets_one_sentence_with_key_value_and_what_is_allowed(call, sentence) -> None:
    good = {"keep": 3, "features": torch.ones(2, 6, 4), "importance": torch.ones(2, 6)}
    call = {**good, **call}
    with pytest.raises(ValueError) as raised:
        vllm_pruner.select(call.pop("name", "vispruner"), **call)
    assert str(raised.value) == sentence
