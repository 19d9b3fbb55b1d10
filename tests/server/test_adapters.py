"""LoRA adapters of the decoder: pruning is the same under each, and a picture is known to all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from media import photo_question
from nightly import NIGHTLY
from safetensors.torch import load_file, save_file
from vllm_process import MODELS
from vllm_server import Server

pytestmark = pytest.mark.server

NAMES = ("demo", "one", "two")
"""The base model and its adapters."""

RANK = 4
DETAILS = {"logprobs": True, "top_logprobs": 5, "max_tokens": 6}


def write_adapter(folder: Path, seed: int, model: str = "demo", merged: Path | None = None) -> str:
    """Write an adapter of noise for the decoder's attention, as PEFT does.

    Args:
        folder: for the adapter.
        seed: of the noise.
        model: a checkpoint.
        merged: a folder for that checkpoint with the adapter in its weights, if it is wanted.
    """
    weights = load_file(MODELS / model / "model.safetensors")
    noise = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if "language_model." in name and name.endswith(("q_proj.weight", "v_proj.weight")):
            rows, columns = weight.shape
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            down = torch.randn(RANK, columns, generator=noise) / 8
            up = torch.randn(rows, RANK, generator=noise) / 8
            tensors |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
            weights[name] = weight + up @ down
    assert tensors
    save_file(tensors, folder / "adapter_model.safetensors")
    if merged is not None:
        shutil.copytree(MODELS / model, merged)
        save_file(weights, merged / "model.safetensors", {"format": "pt"})
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


@NIGHTLY
@pytest.mark.parametrize("model", ["demo", "demo-qwen2.5", "demo-qwen3"])
def test_an_adapter_answers_as_its_weights_merged(
    start: Callable[..., Server], tmp_path: Path, model: str
) -> None:
    """Two adapters side by side in every step, each as the model that it was made for."""
    paths = {}
    for seed, name in enumerate(NAMES[1:]):
        (tmp_path / name).mkdir()
        paths[name] = write_adapter(tmp_path / name, seed, model, tmp_path / f"{name}-merged")
    flags = ["--plugin", "vtprune", "--enable-lora", "--max-loras", "2", "--lora-modules"]
    flags += [f"{name}={path}" for name, path in paths.items()]
    jobs = [
        (name, settings)
        for settings in ({}, {"method": "cdpruner", "tokens": 24}, {"method": "pool", "tokens": 16})
        for name in paths
    ]

    def said(server: Server, name: str, settings: dict[str, Any]) -> list[tuple[str, float]]:
        body = server.ask(photo_question(0), model=name, vtprune=settings, **DETAILS)
        found = body["choices"][0]["logprobs"]["content"]
        return [(each["token"], each["logprob"]) for each in found]

    adapted = start(f"{model}-adapted", *flags, model=model)
    with ThreadPoolExecutor(len(jobs)) as pool:
        answers = list(pool.map(lambda job: said(adapted, *job), jobs))
    for name in paths:
        merged = start(
            f"{model}-{name}-merged", "--plugin", "vtprune", model=str(tmp_path / f"{name}-merged")
        )
        for (of, settings), answer_ in zip(jobs, answers, strict=True):
            if of == name:
                expected = said(merged, "demo", settings)
                assert [token for token, _ in answer_] == [token for token, _ in expected]
                ours, theirs = ([value for _, value in each] for each in (answer_, expected))
                assert ours == pytest.approx(theirs, abs=1e-4)
        merged.stop()
