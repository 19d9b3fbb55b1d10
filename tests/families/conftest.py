"""vLLM looks at the classes of all families here, not each in a process that imports vLLM; and the
contract's files ask the same processors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from contract import PROCESSORS
from launcher import inspect_models_in_process
from pruning_processor import pruning_processor
from tower_kernels import run_tower_kernels_on_a_cpu

inspect_models_in_process()
run_tower_kernels_on_a_cpu()


@pytest.fixture(scope="module", params=PROCESSORS, ids=lambda each: "-".join([each[0], *each[1]]))
def processor(request: pytest.FixtureRequest) -> Any:
    """vLLM's own processor of a pruning model, made as the API server makes it."""
    checkpoint, more = request.param
    return _made(checkpoint, **more)


@cache
def _made(checkpoint: str, **more: Any) -> Any:
    """Once for all files in a process; what a test changes of it is changed back."""
    return pruning_processor(checkpoint, kwargs=more)


@pytest.fixture
def rewritten(processor: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """What a Kimi's processor knows of its model, for a test to change."""
    info = processor.info
    vision, config = info.get_hf_config().vision_config, info.image_processor.media_proc_cfg
    projector = vision.mm_projector_type
    yield vision, config
    vision.mm_projector_type = projector
    config["fixed_output_tokens"] = None
