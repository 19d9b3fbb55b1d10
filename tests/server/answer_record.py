"""Puts requests to an engine in this process, alone and together, in steps of several sizes, and
saves what it answered: python answer_record.py CHECKPOINT IMAGE pruned|stock FILE [DTYPE]

`IMAGE` is what stands for a picture in a prompt. Without a `DTYPE` all is float32, which vLLM's
linear attention for CPUs is not (`linear_attention`); see also `rotary`, `visual_experts` and
`no_capture`. The file is read by `test_crop_families`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from latent_attention import latent_backend
from launcher import compile_nothing
from linear_attention import attend_in_float32
from mistral_words import ids_of
from no_capture import capture_nothing
from offline_pictures import offline_pictures
from position_record import CLIP, CLIP_FACTS, PICTURES, budget, prompt
from rotary import rotate_every_head, rotate_in_time_and_space
from visual_experts import tell_marks_in_every_step
from vllm import LLM, SamplingParams
from vllm.v1.attention.backends.cpu_attn import CPUAttentionMetadataBuilder
from vllm.v1.attention.backends.utils import fill_mm_prefix_query_ranges

BUDGETS = (4096, 37, 16)
SAMPLING = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True, logprobs=0)
SELECTED_BY = "scope"
"""The method of what is compared with an offline selection."""
SETTINGS: list[dict[str, Any]] = [
    {"rate": 0.0},
    {"rate": 1e-12},
    {"rate": 0.5},
    {"rate": 0.5, "crop_budget": "per_crop"},
    {"tokens": 9, "method": "uniform"},
    {"rate": 0.7, "method": "divprune"},
    {"rate": 0.6, "video_method": "evs"},
]
CASES = [
    ("{}\nWhat is it?", ["wide"]),
    ("{}\nWhat is behind the trees?", ["wide"]),
    ("See {}\nand {}\n, then say.", ["square", "tall"]),
    ("{}\nIs it old?", ["small"]),
    ("Nothing at all.", []),
]
WITHOUT_MERGER = ("demo-onevision", "demo-pixtral-12b", "demo-minicpmv2.6", "demo-minicpmv4.5")
"""Checkpoints whose tokens are one patch each, or something of all."""

UNCACHED = ("demo-nemotron", "demo-nemotron-omni")
"""Checkpoints whose prompts are not cached: the states that vLLM keeps within a step are written by
a kernel for GPUs, without which an engine ends there, pruned or not."""

WRITTEN = "[IMG_END]"
"""In place of what stands for a picture, where the tokenizer itself writes all its tokens."""

FILMS = {
    "demo-onevision": "<video>",
    "demo-internvl": "<|video_pad|>",
    "demo-internvl-chat": "<video>",
    "demo-interns1": "<|video_pad|>",
    "demo-interns2": "<|vision_start|><|video_pad|><|vision_end|>",
    "demo-mobius": "<|vision_start|><|video_pad|><|vision_end|>",
    "demo-exaone4.5": "<vision><|video_pad|></vision>",
    "demo-cosmos3": "<|vision_start|><|video_pad|><|vision_end|>",
    "demo-qwen2.5-omni": "<|vision_bos|><|VIDEO|><|vision_eos|>",
    "demo-qwen3-omni": "<|vision_start|><|video_pad|><|vision_end|>",
    "demo-ernie4.5": "<|VIDEO_START|><|video@placeholder|><|VIDEO_END|>",
}
"""What stands for a video in a prompt, by checkpoint whose videos are pruned."""

SOUNDS = {
    "demo-qwen2.5-omni": "<|audio_bos|><|AUDIO|><|audio_eos|>",
    "demo-qwen3-omni": "<|audio_start|><|audio_pad|><|audio_end|>",
}
"""What stands for audio, by checkpoint that takes it."""

SOUND = np.random.default_rng(6).standard_normal(30000).astype(np.float32)


def cases(checkpoint: str) -> list[tuple[str, list[str]]]:
    """What a checkpoint is asked: last, if it takes audio, with audio between a video's tokens."""
    film, sound = (words.get(Path(checkpoint).name) for words in (FILMS, SOUNDS))
    asked = [*CASES]
    asked += [(f"See {film}\nWhat happens?", ["clip"])] if film else []
    if sound:
        asked.append((f"Hear {sound}\nand see {{}}\n, then say.", ["wide", "sound"]))
        asked.append((f"See {{}}\nand {film}\n, then say.", ["wide", "clip", "sound"]))
    return asked


def limits(checkpoint: str) -> dict[str, int]:
    """The most items of a message."""
    name = Path(checkpoint).name
    most = {"image": 2, "video": int(name in FILMS)}
    return most | ({"audio": 1} if name in SOUNDS else {})


def request(
    llm: LLM, case: tuple[str, list[str]], image: str, settings: dict[str, Any] | None
) -> Any:
    text, names = case
    shown = [PICTURES[name] for name in names if name in PICTURES]
    if image == WRITTEN:
        pictures = iter(shown)
        pieces = re.split(r"({})", text)
        parts = [next(pictures) if piece == "{}" else piece for piece in pieces if piece]
        made: Any = {"prompt_token_ids": ids_of(llm.get_tokenizer(), *parts)}
    else:
        made = {"prompt": prompt(text.format(*[image] * len(shown)))}
    data = offline_pictures(llm.model_config.hf_config, shown)
    data["video"] = [(CLIP, CLIP_FACTS)] * names.count("clip")
    data["audio"] = [(SOUND, 16000)] * names.count("sound")
    if names:
        made["multi_modal_data"] = {kind: items for kind, items in data.items() if items}
        made["mm_processor_kwargs"] = {} if settings is None else {"vtprune": settings}
    if data["video"] and data["audio"]:
        made["mm_processor_kwargs"]["use_audio_in_video"] = True
        if settings is not None:
            made["mm_processor_kwargs"]["vtprune"] = {**settings, "video_rate": 0.0}
    return made


def ask(llm: LLM, requests: list[Any]) -> list[Any]:
    outputs = llm.generate(requests, SAMPLING, use_tqdm=False)
    return [
        {
            "prompt": list(output.prompt_token_ids),
            "answer": list(output.outputs[0].token_ids),
            "logprobs": [next(iter(e.values())).logprob for e in output.outputs[0].logprobs],
        }
        for output in outputs
    ]


def answers(
    llm: LLM, asked: list[tuple[str, list[str]]], image: str, settings: dict[str, Any] | None
) -> dict[str, Any]:
    """Each request by itself, again on prefix hits, and all together in steps of each size. Not
    together with latent attention, whose requests vLLM 0.32 mixes up in one step on a CPU, without
    vtprune too, and whose prompts it cuts into no steps there."""
    engine: Any = llm.llm_engine
    in_steps = engine.vllm_config.scheduler_config.enable_chunked_prefill
    requests = [request(llm, case, image, settings) for case in asked]
    llm.reset_prefix_cache()
    alone = [ask(llm, [each])[0] for each in requests]
    found = {"alone": alone, "again": [ask(llm, [each])[0] for each in requests]}
    for tokens in BUDGETS if in_steps else ():
        llm.reset_prefix_cache()
        with budget(engine.engine_core.engine_core.scheduler, tokens):
            found[f"together {tokens}"] = ask(llm, requests)
    return found


def selected(
    llm: LLM, image: str, case: tuple[str, list[str]] = CASES[0], **settings: Any
) -> dict[str, Any]:
    """What is kept of a case's one picture and from what, its rows, and all that stock vLLM makes
    of it."""
    engine: Any = llm.llm_engine
    model = engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner.model
    found: dict[str, Any] = {}
    embed = model.embed_planned

    def look(plans: Any, **fields: Any) -> Any:
        stock: Any = super(type(model).__mro__[1], model)
        found["rows"] = stock.embed_multimodal(**fields)[0]
        found["embedded"] = (rows := embed(plans, **fields))[0]
        return rows

    model.embed_planned = look
    model.on_selection = lambda tokens, index, _layout: found.update(
        kept=index[0], features=tokens.features[0], importance=tokens.importance[0]
    )
    engine.reset_prefix_cache()
    engine.reset_mm_cache()
    engine.reset_encoder_cache()
    found["record"] = ask(
        llm, [request(llm, case, image, {"method": SELECTED_BY, "rate": 0.5, **settings})]
    )[0]
    model.embed_planned, model.on_selection = embed, None
    return found


def mutual(llm: LLM, image: str) -> list[dict[str, Any]]:
    """Of half of two pictures, in steps of each size: the prompt, and which of its tokens see each
    other both ways, from where to where by place, as vLLM tells an attention backend that does."""
    engine: Any = llm.llm_engine
    step: dict[int, tuple[int, int]] = {}
    builder: Any = CPUAttentionMetadataBuilder
    build = builder.build

    def look(self: Any, prefix: int, common: Any, *args: Any, **more: Any) -> Any:
        starts, ends = common.query_start_loc_cpu, common.seq_lens
        found = np.full((common.num_actual_tokens, 2), -1, dtype=np.int32)
        ranges = common.mm_req_doc_ranges
        if common.num_reqs == 1 and fill_mm_prefix_query_ranges(found, ranges, starts, ends):
            first = int(ends[0]) - len(found)
            step.update((first + n, tuple(each)) for n, each in enumerate(found.tolist()))
        return build(self, prefix, common, *args, **more)

    made, builder.build = [], look
    for tokens in BUDGETS:
        llm.reset_prefix_cache()
        step.clear()
        with budget(engine.engine_core.engine_core.scheduler, tokens):
            (record,) = ask(llm, [request(llm, CASES[2], image, {"rate": 0.5})])
        placed = {place: each for place, each in step.items() if each != (-1, -1)}
        made.append({"prompt": record["prompt"], "mutual": placed})
    builder.build = build
    return made


def main() -> None:
    compile_nothing()
    rotate_every_head()
    rotate_in_time_and_space()
    tell_marks_in_every_step()
    capture_nothing()
    checkpoint, image, kind, file, *dtype = sys.argv[1:]
    asked = cases(checkpoint)
    more = {"mm_processor_kwargs": {"vtprune": {"rate": 0.5}}} if kind == "pruned" else {}
    if not dtype:
        attend_in_float32()
    llm = LLM(
        checkpoint,
        dtype=dtype[0] if dtype else "float32",
        max_model_len=4096,
        max_num_batched_tokens=4096,
        max_num_seqs=4,
        enforce_eager=True,
        block_size=32,
        trust_remote_code=True,
        attention_backend=latent_backend(checkpoint),
        enable_prefix_caching=Path(checkpoint).name not in UNCACHED,
        limit_mm_per_prompt=limits(checkpoint),
        **more,
    )
    if kind == "stock":
        torch.save(answers(llm, asked, image, None), file)
        return
    found: dict[str, Any] = {
        json.dumps(each): answers(llm, asked, image, each) for each in SETTINGS
    }
    found["selected"] = selected(llm, image)
    if checkpoint.rpartition("/")[2] not in WITHOUT_MERGER:
        found["by norm"] = selected(llm, image, importance="merger_norm")
    for film in [case for case in asked if case[1] == ["clip"]]:
        found["film"] = selected(llm, image, film)
        found["film compared"] = selected(llm, image, film, video_method="evs")
    if llm.model_config.is_mm_prefix_lm:
        found["mutual"] = mutual(llm, image)
    torch.save(found, file)


if __name__ == "__main__":
    main()
