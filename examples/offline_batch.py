"""Ask many questions about a folder of pictures without a server, each with its own settings.

    python examples/offline_batch.py MODEL FOLDER QUESTIONS.jsonl ANSWERS.jsonl

A line of QUESTIONS names a picture in FOLDER and asks about it, and may have settings:
`{"image": "scene.png", "question": "what shape is the red object?", "vtprune": {"rate": 0}}`. A
line of ANSWERS is the same with the answer and its visual tokens, or with an error. Run again after
an interruption, it continues after the last complete line.

Needs vLLM and vtprune. With the demo model on a CPU, after `make setup`:
`.venv/bin/python examples/offline_batch.py demo/llava assets examples/questions.jsonl out.jsonl`
"""

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vllm import LLM, RequestOutput, SamplingParams
from vllm.exceptions import VLLMClientError

CHUNK = 512
"""Questions given to the engine at a time. With more, an interruption loses more; with fewer, the
engine idles more often. Each chunk has a progress bar."""

SAMPLING = SamplingParams(temperature=0, max_tokens=32)


def main() -> None:
    """Answer the questions that have no answer yet."""
    model, folder, questions, answers = sys.argv[1], *map(Path, sys.argv[2:5])
    done = whole_lines(answers)
    rows = (json.loads(line) for line in questions.read_text().splitlines()[done:])
    llm = LLM(
        model,
        max_model_len=4096,
        allowed_local_media_path=str(folder.resolve()),
        mm_processor_kwargs={"vtprune": {"tokens": 64}},
    )
    with answers.open("a") as file:
        while chunk := list(itertools.islice(rows, CHUNK)):
            for row in answered(llm, folder, chunk):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()


def whole_lines(file: Path) -> int:
    """Remove an incomplete last line, and return the number of complete ones."""
    written = file.read_bytes() if file.exists() else b""
    whole = written[: written.rfind(b"\n") + 1]
    file.write_bytes(whole)
    return whole.count(b"\n")


def answered(llm: LLM, folder: Path, chunk: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield each question with its answer, in their order."""
    faults: list[str | None] = []
    for row in chunk:
        settings = {"vtprune": row["vtprune"]} if "vtprune" in row else None
        try:  # an unreadable picture or refused settings fail only their own line
            llm.enqueue_chat(
                message(folder / row["image"], row["question"]),
                SAMPLING,
                use_tqdm=False,
                mm_processor_kwargs=settings,
            )
        except (VLLMClientError, OSError, ValueError) as error:
            faults.append(str(error))
        else:
            faults.append(None)
    outputs = iter(llm.wait_for_completion(RequestOutput))
    for row, fault in zip(chunk, faults, strict=True):
        if fault is not None:
            yield {**row, "error": fault}
        else:
            output = next(outputs)
            counts = getattr(output, "visual_tokens", None)  # None: an engine at rate 0
            yield {**row, "answer": output.outputs[0].text, "visual_tokens": counts}


def message(picture: Path, question: str) -> list[Any]:
    """Return a conversation of one question about one picture."""
    image = {"type": "image_url", "image_url": {"url": picture.resolve().as_uri()}}
    return [{"role": "user", "content": [image, {"type": "text", "text": question}]}]


if __name__ == "__main__":
    main()
