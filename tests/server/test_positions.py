"""Rotary positions of several dimensions in the real engine, whatever is cached or chunked.

The oracle is `transformers`: its positions of the unpruned prompt, gathered at all text and at the
kept rows. Every position that entered the language model is compared, decoding included.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import run
from nightly import NIGHTLY
from position_oracle import MODULES, Recorded
from position_record import (
    BUDGETS,
    CASES,
    CLIP,
    COMPARED,
    FIRST,
    WHOLE,
    films_of,
)
from transformers import AutoModelForImageTextToText, AutoProcessor
from vllm_process import MODELS, environment
from window_order import in_raster

import vllm_pruner

pytestmark = pytest.mark.server

ROUGHLY = 0.6
"""What rounding moves a log-probability by in bfloat16, the only dtype that vLLM runs linear
attention in on a CPU; most where it sends a token to other experts. Wrong rows move some by more;
positions are compared exactly."""


ALIKE = ("demo-qwen2", "demo-glm-ocr")
"""They place their tokens as Qwen2.5-VL and GLM-4.xV do."""


def _unless_like_another(checkpoint: str) -> Any:
    """A model of experts shares all that is tested here with the dense one: every night."""
    alike = checkpoint in ALIKE or checkpoint.endswith("-moe")
    return pytest.param(checkpoint, marks=NIGHTLY if alike else ())


@pytest.fixture(scope="module", params=[_unless_like_another(each) for each in MODULES])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    script = Path(__file__).with_name("position_record.py")
    done = run(
        [str(script), str(MODELS / request.param)],
        environment(VLLM_ENABLE_V1_MULTIPROCESSING="0"),
        tmp_path_factory.mktemp("positions"),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("positions ")]
    return Recorded(request.param, json.loads(line.removeprefix("positions ")))


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("case", CASES)
def test_every_token_stands_where_it_would_without_pruning(
    recorded: Recorded, case: str, budget: int
) -> None:
    for number, record in enumerate(recorded.answers[f"{case}/{budget}"]):
        expected = recorded.expected(case, number, record)
        places = [place for place, _ in record["places"]]
        found = torch.tensor([position for _, position in record["places"]])
        assert torch.equal(found, expected[places])
        # A prefix hit leaves its part out; all behind it went through the language model.
        last = len(record["prompt"]) + len(record["answer"]) - 1
        assert places == list(range(places[0], last))
        if case in ("cold", "preempted"):
            assert places[0] == 0


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("case", CASES)
def test_answers_are_the_same_in_steps_of_any_size(
    recorded: Recorded, case: str, budget: int
) -> None:
    found, whole = recorded.answers[f"{case}/{budget}"], recorded.answers[f"{case}/{WHOLE}"]
    for one, other in zip(found, whole, strict=True):
        end = len(one["answer"])
        if recorded.rounds:  # where two words nearly tie, what follows has nothing in common
            pairs = enumerate(zip(one["answer"], other["answer"], strict=True))
            end = next((place for place, (here, there) in pairs if here != there), end - 1) + 1
        else:
            assert one["answer"] == other["answer"]
        close = pytest.approx(other["logprobs"][:end], abs=ROUGHLY if recorded.rounds else 2e-3)
        assert one["logprobs"][:end] == close
    for again in ("again", "compared again"):
        assert recorded.answers[f"{again}/{budget}"][0]["places"][0][0] > 0, "a prefix was cached"


@pytest.mark.parametrize(
    ("case", "number"),
    [("cold", 0), (COMPARED, 1)],
)
def test_transformers_gives_the_same_answer_to_the_kept_tokens(
    recorded: Recorded, case: str, number: int
) -> None:
    """The first picture, beside a clip too: all rows of the unpruned prompt, gathered at those that
    are kept and at all text, with positions from the oracle."""
    record, asked = recorded.answers[f"{case}/{WHOLE}"][number], CASES[case][number]
    folder = MODELS / recorded.checkpoint
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()
    whole, at = recorded.unpruned([*record["prompt"], *record["answer"]], asked)
    kinds = torch.tensor(recorded.kinds(whole))
    with torch.no_grad():
        embeds = model.get_input_embeddings()(torch.tensor(whole))
        levels: list[torch.Tensor] = []
        for kind, (pixels, grid) in enumerate(_pixels(folder, films_of(asked[0])), 1):
            visual = model.model.visual(pixels, grid_thw=grid)
            embeds[kinds == kind] = visual.pooler_output
            for place, level in enumerate(getattr(visual, "deepstack_features", None) or ()):
                levels += [torch.zeros_like(embeds)] if place == len(levels) else []
                levels[place][kinds == kind] = level
        is_visual = kinds[at] > 0
        deepstack: Any = {}
        if levels:
            deepstack["visual_pos_masks"] = is_visual.unsqueeze(0)
            deepstack["deepstack_visual_embeds"] = [level[at][is_visual] for level in levels]
        hidden = model.model.language_model(
            inputs_embeds=embeds[at].unsqueeze(0),
            position_ids=recorded.expected(case, number, record).T.unsqueeze(1),
            **deepstack,
        ).last_hidden_state
        scores = model.lm_head(hidden)[0].log_softmax(dim=-1)
    answer = torch.tensor(record["answer"])
    before = scores[len(record["prompt"]) - 1 : -1]
    logprobs = before.gather(1, answer.unsqueeze(1)).flatten()
    close = ROUGHLY if recorded.rounds else 5e-3
    assert recorded.rounds or torch.equal(before.argmax(dim=-1), answer)
    assert float((before.amax(dim=-1) - logprobs).max()) <= close
    assert logprobs.tolist() == pytest.approx(record["logprobs"], abs=close)


_NORMS = ("image_mean", "image_std")


def _pixels(folder: Path, films: list[str]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Patches and grid of the first picture, and of the clip if that is asked about too."""
    processor: Any = AutoProcessor.from_pretrained(folder)
    made = processor.image_processor(images=[FIRST], return_tensors="pt")
    yield made["pixel_values"], made["image_grid_thw"]
    if films:
        # vLLM normalises frames on the device, as pictures
        alike = {name: getattr(processor.image_processor, name) for name in _NORMS}
        video: Any = {"videos": [CLIP], "do_sample_frames": False, **alike}
        made = processor.video_processor(**video, return_tensors="pt")
        ((frames, *sides),) = made["video_grid_thw"].tolist()
        yield made["pixel_values_videos"], torch.tensor([[1, *sides]] * frames)  # GLM-V's way


def test_what_is_kept_of_a_clip_is_what_its_method_chooses_offline(recorded: Recorded) -> None:
    """Of all frames together, whether they stand apart in the prompt or not."""
    width = recorded.config.get_text_config().hidden_size
    counts: dict[str, list[list[int]]] = {"vidcom2": [], "evs": []}
    for each in recorded.compared:
        frames, rows, columns = each["grid"]
        keep = len(each["kept"])
        method = "vidcom2" if keep == round(0.4 * frames * rows * columns) else "evs"
        features = torch.tensor(each["features"])[:, :width].unflatten(0, (frames, -1))
        kept = vllm_pruner.select_video(method, keep=keep, features=features).tolist()
        assert each["kept"] == kept
        frame_of = [place // (rows * columns) for place in kept]
        counts[method].append([frame_of.count(frame) for frame in range(frames)])
    assert [4, 0, 0] in counts["evs"], "nothing of the later frames"
    assert any(len({*some}) > 1 for some in counts["vidcom2"])


def test_importance_is_the_attention_received_before_the_merger(recorded: Recorded) -> None:
    """Of the first picture, in raster order: from the last layer's queries and keys, the whole map
    at once, four patches a token."""
    folder = MODELS / recorded.checkpoint
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()
    processor: Any = AutoProcessor.from_pretrained(folder).image_processor
    inputs = processor(images=[FIRST], return_tensors="pt")
    visual = model.model.visual
    attention = visual.blocks[-1].attn
    rotate = importlib.import_module(attention.__module__).apply_rotary_pos_emb_vision
    seen: list[torch.Tensor] = []

    def look(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        states = args[0] if args else kwargs["hidden_states"]
        heads = module.qkv(states).unflatten(1, (3, module.num_heads, -1))
        query, key = (  # which GLM-OCR normalises
            getattr(module, name, torch.nn.Identity())(heads[:, place])
            for place, name in enumerate(("q_norm", "k_norm"))
        )
        query, key = rotate(query, key, *kwargs["position_embeddings"])
        logits = torch.einsum("qhd,khd->hqk", query, key) * query.shape[-1] ** -0.5
        seen.append(logits.softmax(dim=-1).mean(dim=(0, 1)))

    attention.register_forward_pre_hook(look, with_kwargs=True)
    with torch.no_grad():
        visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
    folded = seen[0].unflatten(0, (-1, 4)).sum(dim=1)
    tokens = in_raster(folded, visual, inputs["image_grid_thw"])
    found = torch.tensor(recorded.importance_of_first)
    close = {"rtol": 5e-2, "atol": 5e-3} if recorded.rounds else {"rtol": 2e-3, "atol": 1e-6}
    torch.testing.assert_close(found, tokens, **close)


def test_a_frame_is_ranked_as_a_picture_of_its_own(recorded: Recorded) -> None:
    """101 tokens are 51 of the first frame and 50 of the second."""
    (video,), images = recorded.frames["video"]["importance"], recorded.frames["images"]
    assert video == pytest.approx(sum(images["importance"], []), rel=2e-3, abs=1e-6)
    ((frames, rows, columns, kept),) = recorded.frames["video"]["kept"]
    assert (frames, len(kept)) == (2, 101) and kept == sorted(set(kept))
    first = [place for place in kept if place < rows * columns]
    second = [place - rows * columns for place in kept[len(first) :]]
    assert (len(first), len(second)) == (51, 50)
    # VisPruner keeps the most important ones, by half of each share.
    for chosen, scores in zip((first, second), images["importance"], strict=True):
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        assert {*order[: len(chosen) // 2]} <= {*chosen}
