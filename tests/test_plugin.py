"""A command line's settings in the engine's arguments, which vLLM's own commands take apart."""

from __future__ import annotations

import argparse
import pickle
from typing import Any

import pytest
from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm_process import MODELS

from vllm_pruner import plugin


def _parsed(*flags: str) -> tuple[argparse.Namespace, EngineArgs]:
    plugin.register()
    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    model = ["--model", str(MODELS / "demo"), "--dtype", "float32"]
    args = parser.parse_args([*model, "--plugin", "vtprune", *flags])
    return args, EngineArgs.from_cli_args(args)


def test_an_engine_is_made_of_what_the_arguments_hold() -> None:
    """As `LLM.from_engine_args` does, and with it `vllm bench throughput` and `latency`."""
    _, arguments = _parsed("--prune-rate", "0.5")
    config: Any = EngineArgs(**vars(arguments)).create_model_config()
    assert config.multimodal_config.mm_processor_kwargs["vtprune"]["rate"] == 0.5


@pytest.mark.parametrize("flags", [("--prune-tokens", "900"), ("--prune-method", "pixels")])
def test_what_is_wrong_with_a_flag_ends_a_copy_with_a_sentence(flags: tuple[str, ...]) -> None:
    _, arguments = _parsed(*flags)
    with pytest.raises(SystemExit, match=f"^vtprune: {flags[0]} is "):
        EngineArgs(**vars(arguments)).create_model_config()


def test_a_misspelt_key_beside_the_flags_ends_with_a_sentence() -> None:
    _, arguments = _parsed("--mm-processor-kwargs", '{"vtprun": {"rate": 0.5}}')
    with pytest.raises(SystemExit, match="^vtprune: vtprun is given"):
        arguments.create_model_config()


def test_further_api_servers_get_the_settings() -> None:
    args, _ = _parsed("--prune-rate", "0.5")
    there = pickle.loads(pickle.dumps(args))
    assert there.mm_processor_kwargs == {"vtprune": {"rate": 0.5}}
