"""Answers questions by vLLM's `LLM` in this process, and prints of each the length of its prompt,
its answer and its visual tokens: python offline_answer.py CHECKPOINT CONTENT.json SETTINGS OWN

CONTENT is asked under SETTINGS, the engine's, and then in one batch under each of OWN, a list of
requests' settings.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vllm import LLM, RequestOutput, SamplingParams

if __name__ == "__main__":
    model, file, settings, own = sys.argv[1:]
    llm = LLM(
        model,
        dtype="float32",
        max_model_len=4096,
        max_num_seqs=64,
        mm_processor_kwargs={"vtprune": json.loads(settings)},
    )
    sampling = SamplingParams(temperature=0, max_tokens=12)
    messages = [{"role": "user", "content": json.loads(Path(file).read_text())}]
    outputs = llm.chat(messages, sampling)
    for each in json.loads(own):
        llm.enqueue_chat(messages, sampling, mm_processor_kwargs={"vtprune": each})
    outputs += llm.wait_for_completion(RequestOutput)
    answers = [
        [len(output.prompt_token_ids), output.outputs[0].text, output.visual_tokens]
        for output in outputs
    ]
    print("answers", json.dumps(answers))  # noqa: T201
