"""Makes a configuration in a process of its own, and pickles it: python pickled_config.py
CHECKPOINT SETTINGS FILE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cloudpickle
from vllm.engine.arg_utils import AsyncEngineArgs

if __name__ == "__main__":
    model, settings, file = sys.argv[1:]
    arguments = AsyncEngineArgs(
        model=model,
        served_model_name=["demo"],
        dtype="float32",
        max_model_len=4096,
        max_num_seqs=8,
        enforce_eager=True,
        num_gpu_blocks_override=512,
        mm_processor_kwargs={"vtprune": json.loads(settings)},
    )
    first, second = arguments.create_engine_config(), arguments.create_engine_config()
    assert first.model_config.architecture == second.model_config.architecture
    Path(file).write_bytes(cloudpickle.dumps(second))
