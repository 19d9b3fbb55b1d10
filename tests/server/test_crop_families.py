"""Families whose images are crops, in the real engine: alone, cached, together and in chunks.

The oracle is `transformers`: what it answers when it gets the visual rows that were kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from answer_record import CASES, SETTINGS
from forked import run
from position_record import PICTURES
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen2Config, Qwen2ForCausalLM
from vllm_process import MODELS, environment

pytestmark = pytest.mark.server

IMAGES = {"demo-internvl-chat": "<image>", "demo-internvl": "<IMG_CONTEXT>"}
"""What stands for an image in a prompt, by checkpoint."""

IDS = [json.dumps(each) for each in SETTINGS]
OFF, EVERY, *PRUNED = IDS


@dataclass(frozen=True)
class Answers:
    """What two engines of a checkpoint answered."""

    checkpoint: str
    pruned: dict[str, Any]
    stock: dict[str, Any]


@pytest.fixture(scope="module", params=IMAGES)
def found(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Answers]:
    folder, checkpoint = tmp_path_factory.mktemp("answers"), request.param
    results = []
    for kind in ("pruned", "stock"):
        file, script = folder / f"{kind}.pt", Path(__file__).with_name("answer_record.py")
        arguments = [str(script), str(MODELS / checkpoint), IMAGES[checkpoint], kind, str(file)]
        settings = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        done = run(arguments, environment(**settings), folder, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
        results.append(torch.load(file))
    yield Answers(checkpoint, *results)


def test_rate_0_is_stock(found: Answers) -> None:
    assert found.pruned[OFF] == found.stock


def test_keeping_all_is_stock_up_to_rounding(found: Answers) -> None:
    for ours, stock in zip(found.pruned[EVERY]["alone"], found.stock["alone"], strict=True):
        assert (ours["prompt"], ours["answer"]) == (stock["prompt"], stock["answer"])
        assert ours["logprobs"] == pytest.approx(stock["logprobs"], abs=1e-4)


@pytest.mark.parametrize("settings", PRUNED)
def test_the_same_answer_alone_again_together_and_in_chunks(found: Answers, settings: str) -> None:
    alone = found.pruned[settings]["alone"]
    for how, answers in found.pruned[settings].items():
        assert [each["answer"] for each in answers] == [each["answer"] for each in alone], how
    for case, ours, stock in zip(CASES, alone, found.stock["alone"], strict=True):
        changed = ours["answer"] != stock["answer"]
        assert changed == bool(case[1]), "the answer depends on the tokens of a picture"
        assert (len(ours["prompt"]) < len(stock["prompt"])) == changed


def test_transformers_gives_the_same_answer_to_the_kept_rows(found: Answers) -> None:
    chosen = found.pruned["selected"]
    record, kept = chosen["record"], chosen["kept"]
    ids = torch.tensor([record["prompt"] + record["answer"]])
    (token,) = {each for each in record["prompt"] if record["prompt"].count(each) >= len(kept)}
    with torch.no_grad():
        model, decoder, rows = _oracle(found.checkpoint, chosen["rows"])
        embeds = model.get_input_embeddings()(ids)
        embeds[ids == token] = rows[kept]
        scores = model.lm_head(decoder(inputs_embeds=embeds).last_hidden_state)[0].log_softmax(-1)
    answer, before = torch.tensor(record["answer"]), scores[len(record["prompt"]) - 1 : -1]
    assert torch.equal(before.argmax(dim=-1), answer)
    logprobs = before.gather(1, answer.unsqueeze(1)).flatten()
    assert logprobs.tolist() == pytest.approx(record["logprobs"], abs=5e-3)


def _oracle(checkpoint: str, rows: torch.Tensor) -> tuple[Any, Any, torch.Tensor]:
    """A model of transformers, its decoder, and its rows of the first picture, unpruned."""
    folder = MODELS / checkpoint
    config = json.loads((folder / "config.json").read_text())
    if "llm_config" in config:  # transformers has the decoder only; its rows are stock vLLM's
        chat: Any = Qwen2ForCausalLM(Qwen2Config(**config["llm_config"])).float().eval()
        weights, prefix = load_file(folder / "model.safetensors"), "language_model."
        own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        chat.load_state_dict(own)
        return chat, chat.model, rows
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()
    processor: Any = AutoProcessor.from_pretrained(folder)
    inputs = processor(text=[processor.image_token], images=[PICTURES["wide"]], return_tensors="pt")
    sizes = {name: inputs[name] for name in ("image_sizes",) if name in inputs}
    features = model.model.get_image_features(inputs["pixel_values"], **sizes)
    made = torch.cat([each.reshape(-1, rows.shape[1]) for each in features.pooler_output])
    assert torch.allclose(made, rows, atol=1e-3), "stock vLLM and transformers differ"
    return model, model.model.language_model, made
