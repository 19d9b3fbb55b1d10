"""Families of crops, of rows with breaks, or behind latent attention, in the real engine: alone,
cached, together and in chunks.

The oracle is `transformers`: what it answers when it gets the visual rows that were kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import accumulate, groupby
from typing import Any

import numpy as np
import pytest
import torch
from answer_oracle import Oracle, as_pruned
from answer_pair import Answers, answers_of
from answer_record import SELECTED_BY, SETTINGS, WRITTEN, cases
from halves import assert_lies_on, explained
from media import PHOTOS, clip, photo_question, text_part, video_part
from nightly import NIGHTLY
from PIL import Image
from vllm_server import Server

import vllm_pruner
from vllm_pruner.layout.positions import split
from vllm_pruner.layout.shares import frame_shares, shares

pytestmark = pytest.mark.server

IMAGES = {
    "demo-internvl-chat": "<image>",
    "demo-internvl": "<IMG_CONTEXT>",
    "demo-idefics3": "<image>",
    "demo-smolvlm": "<image>",
    "demo-onevision": "<image>",
    "demo-mistral3": "[IMG]",
    "demo-pixtral": WRITTEN,
    "demo-pixtral-12b": WRITTEN,
    "demo-gemma3": "<start_of_image>,",  # behind which vLLM allows no line break
    "demo-gemma4": "<|image|>",
    "demo-kimi": "<|media_pad|>",
    "demo-kimi-k2.5": "<|media_pad|>",
    "demo-llama4": "<|image|>",
    "demo-minicpm4.6": "<|image_pad|>",
    "demo-minicpm4.7": "<|image_pad|>",
    "demo-minicpmv2.6": "(<image>./</image>)",
    "demo-minicpmv4.5": "(<image>./</image>)",
    "demo-molmo2": "<|image|>",
    "demo-cohere2": "<|IMG_PATCH|>",
    "demo-nemotron": "<image>",
    "demo-nemotron-omni": "<image>",
    "demo-lfm2": "<image>",
    "demo-step": "<im_patch>",
}
"""What stands for an image in a prompt, by checkpoint."""

IDS = [json.dumps(each) for each in SETTINGS]
OFF, EVERY, *PRUNED = IDS

HALVES = {"demo-gemma3": 64, "demo-gemma4": 66, "demo-molmo2": 134}
"""Rows of half of two pictures, by checkpoint whose decoder looks both ways within a picture."""

RARELY = (
    *("demo-internvl", "demo-idefics3", "demo-pixtral", "demo-gemma3", "demo-cohere2"),
    *("demo-kimi", "demo-kimi-k2.5", "demo-llama4", "demo-minicpm4.6", "demo-minicpm4.7"),
    *("demo-minicpmv2.6", "demo-minicpmv4.5"),
    *("demo-lfm2", "demo-nemotron", "demo-nemotron-omni", "demo-pixtral-12b", "demo-molmo2"),
    "demo-step",
)
"""At night: what is pruned as another of these is, which every run has. Prompts, layouts and rows
of all are in `tests/families`."""
CHECKPOINTS = [pytest.param(each, marks=NIGHTLY if each in RARELY else ()) for each in IMAGES]


@pytest.fixture(scope="module", params=CHECKPOINTS)
def found(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Answers]:
    folder, checkpoint = tmp_path_factory.mktemp("answers"), request.param
    dtype = ["bfloat16"] if checkpoint.startswith("demo-nemotron") else []  # it has no other
    yield answers_of(checkpoint, IMAGES[checkpoint], folder, *dtype)


def test_rate_0_is_stock(found: Answers) -> None:
    assert found.pruned[OFF] == found.stock


def test_keeping_all_is_stock_up_to_rounding(found: Answers) -> None:
    for ours, stock in zip(found.pruned[EVERY]["alone"], found.stock["alone"], strict=True):
        assert ours["prompt"] == as_pruned(found.checkpoint, stock["prompt"])
        assert ours["answer"] == stock["answer"]
        assert ours["logprobs"] == pytest.approx(stock["logprobs"], abs=1e-4)


@pytest.mark.parametrize("settings", PRUNED)
def test_the_same_answer_alone_again_together_and_in_chunks(found: Answers, settings: str) -> None:
    alone = found.pruned[settings]["alone"]
    for how, answers in found.pruned[settings].items():
        assert [each["answer"] for each in answers] == [each["answer"] for each in alone], how
    asked = cases(found.checkpoint)
    for case, ours, stock in zip(asked, alone, found.stock["alone"], strict=True):
        changed = ours["answer"] != stock["answer"]
        assert changed == bool(case[1]), "the answer depends on the tokens of a picture"
        assert (len(ours["prompt"]) < len(stock["prompt"])) == changed


@pytest.mark.parametrize("by", ["selected", "by norm"])
def test_an_offline_selection_of_the_same_features_keeps_the_same(found: Answers, by: str) -> None:
    """In as many shares as the prompt has runs of placeholders, each as long as its run."""
    if found.checkpoint == "demo-onevision":
        pytest.skip("newlines are among the placeholders: tests/layout/test_newlines.py")
    if by not in found.pruned:
        pytest.skip("its tower merges nothing")
    chosen = found.pruned[by]
    prompts = (chosen["record"]["prompt"], found.stock["alone"][0]["prompt"])
    lengths, sizes = (_runs(prompt, _image_token(chosen)) for prompt in prompts)
    if found.checkpoint in ("demo-mistral3", "demo-pixtral", "demo-pixtral-12b", "demo-molmo2"):
        # Of one run with the breaks, which the oracle counts.
        lengths, sizes = [len(chosen["kept"])], [len(chosen["features"])]
    columns = [chosen[name].split(sizes) for name in ("features", "importance")]
    kept: list[int] = []
    starts = accumulate(sizes[:-1], initial=0)
    for start, length, features, scores in zip(starts, lengths, *columns, strict=True):
        part = vllm_pruner.select(SELECTED_BY, keep=length, features=features, importance=scores)
        kept += (part + start).tolist()
    assert chosen["kept"].tolist() == kept
    assert bool((chosen["importance"] > 0).all())
    others = found.pruned["selected"]["importance"]
    assert torch.equal(chosen["importance"], others) == (by == "selected")


def test_each_frame_of_a_video_keeps_its_share_and_a_newline_stays(found: Answers) -> None:
    """The kept rows are those of stock vLLM, which may interpolate frames after the projector."""
    if "film" not in found.pruned:
        pytest.skip("videos of this family are not pruned")
    chosen = found.pruned["film"]
    kept: list[int] = chosen["kept"].tolist()
    newline = kept[len(kept) :] if len(chosen["rows"]) == len(chosen["features"]) else [kept.pop()]
    shares_of, columns = frame_shares(6, len(kept)), (chosen["features"], chosen["importance"])
    frames = zip(shares_of, *(column.chunk(6) for column in columns), strict=True)
    expected: list[int] = []
    for number, (share, features, scores) in enumerate(frames):
        part = vllm_pruner.select(SELECTED_BY, keep=share, features=features, importance=scores)
        expected += (part + number * len(features)).tolist()
    assert kept == expected and newline in ([], [len(chosen["features"])])
    torch.testing.assert_close(chosen["embedded"], chosen["rows"][[*kept, *newline]])


def test_frames_that_are_compared_are_one_run_with_the_text_between(found: Answers) -> None:
    """If there is any, as in stock vLLM's prompt. Features of resampled frames are mixtures."""
    if found.checkpoint not in ("demo-internvl", "demo-internvl-chat"):
        pytest.skip("no text is between frames, or videos of this family are not pruned")
    chosen = found.pruned["film compared"]
    kept: list[int] = chosen["kept"].tolist()
    features = chosen["features"].unflatten(0, (6, -1))
    expected = vllm_pruner.select_video("evs", keep=len(kept), features=features)
    assert kept == expected.tolist()
    token, size = _image_token(chosen), features.shape[1]
    runs = [(each, list(run)) for each, run in groupby(_film(found.stock), token.__eq__)]
    between = [run for is_frame, run in runs[2:-2] if not is_frame]
    assert len(between) == 5
    oracle = Oracle(found.checkpoint, found.pruned["selected"]["rows"])
    rows = []
    for frame, text in enumerate([*between, []]):
        rows.append(chosen["rows"][[place for place in kept if place // size == frame]])
        rows.append(oracle.model.get_input_embeddings()(torch.tensor(text, dtype=torch.int64)))
    torch.testing.assert_close(chosen["embedded"], torch.cat(rows).detach())
    assert chosen["record"]["prompt"].count(token) == len(chosen["embedded"])


def _film(answers: dict[str, Any]) -> list[int]:
    """The prompt of the request with a clip, which is the last one."""
    prompt: list[int] = answers["alone"][-1]["prompt"]
    return prompt


def _runs(prompt: list[int], token: int) -> list[int]:
    """How often a token stands there, each time that it does."""
    return [len(list(same)) for each, same in groupby(prompt) if each == token]


def _image_token(chosen: dict[str, Any]) -> int:
    """The token that stands for an image: no other is there so often."""
    prompt = chosen["record"]["prompt"]
    (token,) = {each for each in prompt if prompt.count(each) >= len(chosen["kept"])}
    return int(token)


def test_transformers_gives_the_same_answer_to_the_kept_rows(found: Answers) -> None:
    chosen = found.pruned["selected"]
    # These decoders answer text otherwise too, on a CPU: Nemotron's is in bfloat16.
    if "kimi" in found.checkpoint or "nemotron" in found.checkpoint:
        assert torch.equal(chosen["embedded"], chosen["rows"][chosen["kept"]])
        return
    if found.checkpoint == "demo-minicpm4.7":  # positions in another way: tests/families
        (embedded, _), (rows, _) = (split(chosen[name]) for name in ("embedded", "rows"))
        torch.testing.assert_close(embedded, rows[chosen["kept"]])
        return
    if found.checkpoint == "demo-pixtral-12b":  # which transformers has as a LLaVA alone
        breaks = len(chosen["embedded"]) - len(chosen["kept"])
        above = chosen["kept"] // (len(chosen["rows"]) // (breaks + 1))
        embedded = chosen["embedded"][torch.arange(len(above)) + above]
        assert torch.equal(embedded, chosen["rows"][chosen["kept"]])
        return
    if found.checkpoint == "demo-molmo2":  # which transformers has not
        run = torch.tensor(_run_of_a_picture(found.stock["alone"][0]["prompt"], chosen))
        stays = run != (token := _image_token(chosen))
        stays[(run == token).nonzero().flatten()[chosen["kept"]]] = True
        torch.testing.assert_close(chosen["embedded"], chosen["rows"][stays])
        return
    record, token = chosen["record"], _image_token(chosen)
    ids = torch.tensor([record["prompt"] + record["answer"]])
    with torch.no_grad():
        oracle = Oracle(found.checkpoint, chosen["rows"])
        embeds = oracle.model.get_input_embeddings()(ids)
        embeds[ids == token] = oracle.kept(chosen["kept"].tolist())
        scores = oracle.scores(embeds, ids.masked_fill(ids == token, 0))
    answer, before = torch.tensor(record["answer"]), scores[len(record["prompt"]) - 1 : -1]
    assert torch.equal(before.argmax(dim=-1), answer)
    logprobs = before.gather(1, answer.unsqueeze(1)).flatten()
    assert logprobs.tolist() == pytest.approx(record["logprobs"], abs=5e-3)


def _run_of_a_picture(prompt: list[int], chosen: dict[str, Any]) -> list[int]:
    """What stands for the only picture of a stock prompt, marks before and behind it included."""
    start = prompt.index(_image_token(chosen)) - 1
    return prompt[start : start + len(chosen["rows"])]


def test_kept_tokens_of_a_picture_see_each_other_and_nothing_else_does(found: Answers) -> None:
    """Where a decoder looks both ways within a picture. vLLM's attention on a CPU does not, so this
    is what its runner tells the backends that do, in steps of every size."""
    if "mutual" not in found.pruned:
        pytest.skip("no token of this decoder sees a later one")
    token, half = _image_token(found.pruned["selected"]), HALVES[found.checkpoint]
    for record in found.pruned["mutual"]:
        expected, start = {}, 0
        for each, alike in groupby(record["prompt"]):
            end = start + len(list(alike))
            if each == token:
                expected |= dict.fromkeys(range(start, end), (start, end - 1))
            start = end
        assert len(expected) == half and record["mutual"] == expected


@pytest.fixture(scope="module")
def served(start_shared: Callable[..., Server]) -> Server:
    """Tiles whose names stand between them, over HTTP."""
    return start_shared("smolvlm", "--plugin", "vtprune", model="demo-smolvlm")


@pytest.fixture(scope="module")
def with_breaks(start_shared: Callable[..., Server]) -> Server:
    """Rows with breaks between, over HTTP."""
    return start_shared("mistral3", "--plugin", "vtprune", model="demo-mistral3")


@pytest.mark.parametrize("name", ["served", "with_breaks"])
def test_usage_prompt_and_estimate_say_what_was_kept(
    request: pytest.FixtureRequest, name: str
) -> None:
    served: Server = request.getfixturevalue(name)
    content = photo_question(0)
    whole = served.ask(content, max_tokens=1, vtprune={"rate": 0})["usage"]["prompt_tokens"]
    for settings in ({}, {"rate": 0.75}, {"tokens": 3}, {"tokens": 19, "method": "adafv"}):
        usage = served.ask(content, max_tokens=1, vtprune=settings)["usage"]
        counts = usage["visual_tokens"]
        assert whole - usage["prompt_tokens"] == counts["original"] - counts["kept"] > 0
        size = dict(zip(("width", "height"), Image.open(PHOTOS[0]).size, strict=True))
        body = {"images": [size], "vtprune": settings}
        told = served.client.post("/vtprune/estimate", json=body).json()
        assert counts == {name: told[name] for name in ("original", "kept")}
    kept = []
    for level in ("low", "auto", "high"):
        content[0]["image_url"]["detail"] = level
        usage = served.ask(content, max_tokens=1, vtprune={"rate": 0.7})["usage"]
        kept.append(usage["visual_tokens"]["kept"])
    assert kept == sorted(set(kept))


def test_the_overlay_of_each_tile_lies_on_its_part_of_the_picture(served: Server) -> None:
    """Two rows of four tiles, left red and right blue, and the whole picture last."""
    image = explained(served, 672, 336)
    assert len(image["views"]) == 9
    kept = [len(view["kept"]) for view in image["views"]]
    assert kept == shares([16] * 9, sum(kept)) and sum(kept) == len(image["kept"])
    for number, view in enumerate(image["views"]):
        assert_lies_on(view, np.full(16, number % 4 < 2) if number < 8 else np.arange(16) % 4 < 2)


def test_the_overlay_of_rows_with_breaks_lies_on_the_picture(with_breaks: Server) -> None:
    (view,) = explained(with_breaks, 448, 224)["views"]
    assert (view["rows"], view["columns"]) == (8, 16)
    assert_lies_on(view, np.arange(128) % 16 < 8)


@pytest.fixture(scope="module")
def resampled(start_shared: Callable[..., Server]) -> Server:
    """Crops whose raster, and frames whose patches are interpolated, over HTTP."""
    return start_shared("onevision", "--plugin", "vtprune", model="demo-onevision")


def test_the_overlay_of_a_resampled_raster_lies_on_the_picture(resampled: Server) -> None:
    base, raster = explained(resampled, 672, 672)["views"]
    assert (base["rows"], base["columns"], raster["rows"], raster["columns"]) == (4, 4, 12, 12)
    for view in (base, raster):
        places = np.arange(view["rows"] * view["columns"]) % view["columns"]
        assert_lies_on(view, places < view["columns"] // 2)


def test_a_video_file_has_one_budget_over_its_frames(resampled: Server) -> None:
    content = [video_part(clip(8)), text_part("What happens?")]
    whole = resampled.ask(content, vtprune={"rate": 0})
    original = whole["usage"]["visual_tokens"]["original"]
    answers = {whole["choices"][0]["message"]["content"]}
    for settings, kept in [
        ({}, round(original / 9)),
        ({"video_method": "evs", "video_rate": 0.5}, round(original / 2)),
        ({"video_method": "vidcom2", "rate": 0.5}, round(original / 2)),
        ({"method": "adafv", "tokens": 7}, 7),
        ({"tokens": 1}, 1),
    ]:
        answer = resampled.ask(content, vtprune=settings)
        counts = {"original": original, "kept": kept}
        assert answer["usage"]["visual_tokens"]["video"] == counts
        gone = whole["usage"]["prompt_tokens"] - answer["usage"]["prompt_tokens"]
        assert gone == original - kept > 0
        answers.add(answer["choices"][0]["message"]["content"])
    assert len(answers) > 3, "another choice is another answer"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tokens": 273}, "tokens is 273; allowed: 1 to 272"),
        ({"rate": 1}, "rate is 1"),
        ({"method": "visionzip"}, "method is 'visionzip', which works on an image of one grid"),
    ],
    ids=["tokens", "rate", "method"],
)
def test_a_bad_request_is_answered_and_the_next_one_served(
    served: Server, settings: dict[str, Any], sentence: str
) -> None:
    answer = served.post(photo_question(0), vtprune=settings)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]["message"]
    assert served.ask(photo_question(0), max_tokens=1)
