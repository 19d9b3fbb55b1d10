"""Answers questions by vLLM's `LLM` in this process, and prints of each the length of its prompt,
its answer and its visual tokens: python offline_answer.py CHECKPOINT CONTENT.json SETTINGS OWN

CONTENT is asked under SETTINGS, the engine's, and then in one batch under each of OWN, a list of
requests' settings. SETTINGS null is an engine that nobody told to prune. What is refused is printed
as the sentence.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vllm import LLM, RequestOutput, SamplingParams
from vllm.exceptions import VLLMValidationError

if __name__ == "__main__":
    model, file, settings, own = sys.argv[1:]
    llm = LLM(
        model,
        dtype="float32",
        max_model_len=4096,
        max_num_seqs=64,
        mm_processor_kwargs=None if settings == "null" else {"vtprune": json.loads(settings)},
    )
    sampling = SamplingParams(temperature=0, max_tokens=12)
    messages = [{"role": "user", "content": json.loads(Path(file).read_text())}]
    outputs = llm.chat(messages, sampling)
    for each in json.loads(own):
        try:
            llm.enqueue_chat(messages, sampling, mm_processor_kwargs={"vtprune": each})
        except VLLMValidationError as error:
            print("refused", error)  # noqa: T201
    outputs += llm.wait_for_completion(RequestOutput)
    answers = [
        [
            len(output.prompt_token_ids),
            output.outputs[0].text,
            getattr(output, "visual_tokens", None),
        ]
        for output in outputs
    ]
    print("answers", json.dumps(answers))  # noqa: T201
