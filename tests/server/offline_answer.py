"""Answers one question by vLLM's `LLM` in this process, and prints prompt length and answer:
python offline_answer.py CHECKPOINT CONTENT.json SETTINGS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vllm import LLM, SamplingParams

if __name__ == "__main__":
    model, content, settings = sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), sys.argv[3]
    llm = LLM(
        model,
        dtype="float32",
        max_model_len=4096,
        max_num_seqs=64,
        mm_processor_kwargs={"vtprune": json.loads(settings)},
    )
    sampling = SamplingParams(temperature=0, max_tokens=12)
    (output,) = llm.chat([{"role": "user", "content": content}], sampling)
    answer = [len(output.prompt_token_ids), output.outputs[0].text]
    print("answer", json.dumps(answer))  # noqa: T201
