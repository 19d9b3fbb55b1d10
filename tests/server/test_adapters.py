"""LoRA adapters of the decoder: pruning is the same under each, and a picture is known to all."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from media import photo_question
from safetensors.torch import load_file, save_file
from vllm_process import MODELS
from vllm_server import Server

pytestmark = pytest.mark.server

NAMES = ("demo", "one", "two")
"""The base model and its adapters."""

RANK = 4
DETAILS = {"logprobs": True, "top_logprobs": 5, "max_tokens": 6}


def write_adapter(folder: Path, seed: int) -> str:
    """Write an adapter of noise for the decoder's attention, as PEFT does."""
    weights = load_file(MODELS / "demo" / "model.safetensors")
    noise = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if name.startswith("language_model.") and name.endswith(("q_proj.weight", "v_proj.weight")):
            rows, columns = weight.shape
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(RANK, columns, generator=noise) / 8
            tensors[f"{stem}.lora_B.weight"] = torch.randn(rows, RANK, generator=noise) / 8
    assert tensors
    save_file(tensors, folder / "adapter_model.safetensors")
    about = {"r": RANK, "lora_alpha": RANK, "target_modules": ["q_proj", "v_proj"], "bias": "none"}
    config = {**about, "peft_type": "LORA", "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    made = {
        name: write_adapter(tmp_path_factory.mktemp(name), seed)
        for seed, name in enumerate(NAMES[1:])
    }
    modules = [f"{name}={path}" for name, path in made.items()]
    most = ["--max-loras", "2", "--max-lora-rank", "8"]
    return ["--enable-lora", *most, "--lora-modules", *modules]


@pytest.fixture(scope="module")
def adapted(start_shared: Callable[..., Server], flags: list[str]) -> Server:
    return start_shared("adapted", "--plugin", "vtprune", *flags)


def answer(server: Server, name: str, photo: int = 0, **body: Any) -> str:
    """The answer of the base model or an adapter, with its log-probabilities."""
    found = server.ask(photo_question(photo), model=name, **DETAILS, **body)
    return json.dumps(found["choices"][0]["logprobs"])


def test_at_rate_0_each_answers_as_in_stock_vllm_to_the_byte(
    start: Callable[..., Server], adapted: Server, flags: list[str]
) -> None:
    stock = start("stock-adapted", *flags, VLLM_PLUGINS="none")
    expected = [answer(stock, name) for name in NAMES]
    assert len(set(expected)) == len(NAMES), "the adapters change nothing"
    adapted.forget()
    assert [answer(adapted, name, vtprune={"rate": 0}) for name in NAMES] == expected


@pytest.mark.parametrize("method", ["scope", "cdpruner"])
def test_an_answer_is_the_same_alone_on_a_hit_and_beside_other_adapters(
    adapted: Server, method: str
) -> None:
    def pruned(name: str) -> str:
        return answer(adapted, name, vtprune={"method": method})

    alone = []
    for name in NAMES:
        adapted.forget()
        alone.append(pruned(name))
    assert len(set(alone)) == len(NAMES)
    assert [pruned(name) for name in NAMES] == alone
    adapted.forget()
    # Stock vLLM on a CPU gives the base model an adapter that runs beside it: text alone shows it.
    with ThreadPoolExecutor(len(NAMES)) as pool:
        assert list(pool.map(pruned, NAMES[1:])) == alone[1:]


def test_the_tower_sees_a_picture_once_for_all_adapters(adapted: Server) -> None:
    adapted.forget()
    before = adapted.metric("vtprune_feature_cache_misses_total")
    for name in NAMES:
        answer(adapted, name, photo=1)
    assert adapted.metric("vtprune_feature_cache_misses_total") == before + 1
