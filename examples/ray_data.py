"""Ask a model about a folder of pictures with Ray Data LLM: read questions from a parquet file, and
write answers with visual-token counts into a folder of parquet files.

    python examples/ray_data.py MODEL PICTURES QUESTIONS.parquet ANSWERS

A row of QUESTIONS has a unique `id`, a `picture` in PICTURES, a `question`, and optionally
`vtprune`, its settings as JSON: `{"rate": 0}`. A row of ANSWERS has the `id`, the `answer`, its
visual tokens `original` and `kept`, and an `error` if there is no answer. Ray shows the progress.
Run again after an interruption, it asks only what has no answer yet, which Ray records in
ANSWERS.written.

How Ray is installed beside vLLM is in docs/scale.md. With the demo model on a CPU,
`python examples/ray_data.py --demo questions.parquet` writes four questions about `assets`, and
`python examples/ray_data.py demo/llava assets questions.parquet answers` answers them.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from PIL import Image
from ray.data.checkpoint import CheckpointConfig
from ray.data.llm import build_processor, vLLMEngineProcessorConfig

ENGINE = {"max_model_len": 4096, "mm_processor_kwargs": {"vtprune": {"tokens": 64}}}

SAMPLING = {"temperature": 0, "max_tokens": 32}

BLOCK = 64
"""Rows that are written together: the most that an interruption can lose per engine."""

DEMO = [
    ("scene.png", "what color is the heart?", None),
    ("scene.png", "what color are the tiles?", {"method": "adafv", "tokens": 32}),
    ("scene.png", "what color is the heart?", {"rate": 0}),
    ("photos/cat.jpg", "what color is the heart?", {"rate": 0.5}),
]


def main() -> None:
    """Answer the questions that have no answer yet."""
    model, pictures, questions, answers = sys.argv[1], *map(Path, sys.argv[2:5])
    # Each stage reserves a CPU of those that Ray is told of, and hangs if there are too few.
    ray.init(num_cpus=None if "RAY_ADDRESS" in os.environ else max(8, os.cpu_count() or 1))
    ray.data.DataContext.get_current().checkpoint_config = CheckpointConfig(
        id_column="id",
        checkpoint_path=f"{answers.resolve()}.written",
        delete_checkpoint_on_success=False,
    )
    on_cpu = not torch.cuda.is_available()
    config = vLLMEngineProcessorConfig(
        model_source=model,
        engine_kwargs={**ENGINE, "enforce_eager": on_cpu},
        batch_size=BLOCK,
        concurrency=1,
        should_continue_on_error=True,
        tokenize_stage=False,  # the engine does both
        detokenize_stage=False,
        placement_group_config={"bundles": [{"CPU": 1}]} if on_cpu else None,
    )
    ask = build_processor(config, partial(asked, pictures.resolve()))
    rows = ray.data.read_parquet(str(questions.resolve()))
    rows = rows.repartition(target_num_rows_per_block=BLOCK)
    ask(rows).map(answered).write_parquet(str(answers.resolve()), mode="append")


def asked(pictures: Path, row: dict[str, Any]) -> dict[str, Any]:
    """Return a question in the form that the stages of Ray Data LLM take.

    The picture goes to the engine directly: Ray's own stage for pictures needs an older vLLM.
    """
    own, (picture, fault) = row.get("vtprune"), picture_of(pictures / row["picture"])
    content = [{"type": "image"}, {"type": "text", "text": row["question"]}]
    return {
        "id": row["id"],
        "fault": fault,
        "messages": [{"role": "user", "content": content}],
        "multimodal_data": {} if picture is None else {"image": picture},
        "mm_processor_kwargs": {"vtprune": json.loads(own)} if own else {},
        "sampling_params": SAMPLING,
    }


def picture_of(file: Path) -> tuple[Image.Image | None, str]:
    """Return a picture and "", or None and an error, so that only its own row fails."""
    try:
        with Image.open(file) as opened:
            return opened.convert("RGB"), ""
    except OSError as error:
        return None, f"{file.name}: {error}"


def answered(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of ANSWERS."""
    counts = (row.get("metrics") or {}).get("visual_tokens") or {}
    error = row["fault"] or row["__inference_error__"]
    return {
        "id": row["id"],
        "answer": "" if error else row["generated_text"].strip(),
        "original": counts.get("original"),
        "kept": counts.get("kept"),
        "error": error,
    }


def write_demo(file: Path) -> None:
    """Write questions about the pictures in `assets`."""
    import pyarrow as pa
    from pyarrow import parquet

    columns = {
        "id": list(range(len(DEMO))),
        "picture": [picture for picture, _, _ in DEMO],
        "question": [question for _, question, _ in DEMO],
        "vtprune": [own and json.dumps(own) for _, _, own in DEMO],
    }
    parquet.write_table(pa.table(columns), file)


if __name__ == "__main__":
    if sys.argv[1] == "--demo":
        write_demo(Path(sys.argv[2]))
    else:
        main()
