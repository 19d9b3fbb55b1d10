"""Puts requests to an engine in this process, alone and together, in steps of several sizes, and
saves what it answered: python answer_record.py CHECKPOINT IMAGE pruned|stock FILE [DTYPE]

`IMAGE` is what stands for a picture in a prompt. The file is read by `test_crop_families`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from position_record import PICTURES, budget, prompt
from vllm import LLM, SamplingParams

BUDGETS = (4096, 37, 16)
SAMPLING = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True, logprobs=0)
SETTINGS: list[dict[str, Any]] = [
    {"rate": 0.0},
    {"rate": 1e-12},
    {"rate": 0.5},
    {"rate": 0.5, "crop_budget": "per_crop"},
    {"tokens": 9, "method": "uniform"},
    {"rate": 0.7, "method": "divprune"},
]
CASES = [
    ("{}\nWhat is it?", ["wide"]),
    ("{}\nWhat is behind the trees?", ["wide"]),
    ("See {}\nand {}\n, then say.", ["square", "tall"]),
    ("{}\nIs it old?", ["small"]),
    ("Nothing at all.", []),
]


def request(case: int, image: str, settings: dict[str, Any] | None) -> Any:
    text, names = CASES[case]
    made: Any = {"prompt": prompt(text.format(*[image] * len(names)))}
    if names:
        made["multi_modal_data"] = {"image": [PICTURES[name] for name in names]}
        if settings is not None:
            made["mm_processor_kwargs"] = {"vtprune": settings}
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


def answers(llm: LLM, image: str, settings: dict[str, Any] | None) -> dict[str, Any]:
    """Each request by itself, again on prefix hits, and all together in steps of each size."""
    engine: Any = llm.llm_engine
    requests = [request(case, image, settings) for case in range(len(CASES))]
    llm.reset_prefix_cache()
    alone = [ask(llm, [each])[0] for each in requests]
    found = {"alone": alone, "again": [ask(llm, [each])[0] for each in requests]}
    for tokens in BUDGETS:
        llm.reset_prefix_cache()
        with budget(engine.engine_core.engine_core.scheduler, tokens):
            found[f"together {tokens}"] = ask(llm, requests)
    return found


def selected(llm: LLM, image: str) -> dict[str, Any]:
    """What is kept of the first picture and from what, and all rows that stock vLLM makes of it."""
    engine: Any = llm.llm_engine
    model = engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner.model
    found: dict[str, Any] = {}
    embed = model.embed_planned

    def look(plans: Any, **fields: Any) -> Any:
        stock: Any = super(type(model).__mro__[1], model)
        found["rows"] = stock.embed_multimodal(**fields)[0]
        return embed(plans, **fields)

    model.embed_planned = look
    model.on_selection = lambda tokens, index, _layout: found.update(
        kept=index[0], features=tokens.features[0], importance=tokens.importance[0]
    )
    engine.reset_prefix_cache()
    engine.reset_mm_cache()
    engine.reset_encoder_cache()
    found["record"] = ask(llm, [request(0, image, {"rate": 0.5})])[0]
    return found


def main() -> None:
    checkpoint, image, kind, file, *dtype = sys.argv[1:]
    more = {"mm_processor_kwargs": {"vtprune": {"rate": 0.5}}} if kind == "pruned" else {}
    llm = LLM(
        checkpoint,
        dtype=dtype[0] if dtype else "float32",
        max_model_len=4096,
        max_num_batched_tokens=4096,
        max_num_seqs=4,
        enforce_eager=True,
        block_size=32,
        trust_remote_code=True,
        limit_mm_per_prompt={"image": 2, "video": 0},
        **more,
    )
    if kind == "stock":
        torch.save(answers(llm, image, None), file)
        return
    found: dict[str, Any] = {json.dumps(each): answers(llm, image, each) for each in SETTINGS}
    torch.save({**found, "selected": selected(llm, image)}, file)


if __name__ == "__main__":
    main()
