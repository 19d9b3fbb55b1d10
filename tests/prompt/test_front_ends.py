"""A command line that hands the prompts to another front end of vLLM is refused at start."""

from __future__ import annotations

import pytest
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.cli.serve import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm_process import MODELS

from vllm_pruner import plugin

RUST = "VLLM_USE_RUST_FRONTEND"
PRUNE = ("--plugin", "vtprune")


def configured(*flags: str) -> AsyncEngineArgs:
    """The engine's arguments as `vllm serve` makes them of its command line."""
    plugin.register()
    parser = make_arg_parser(FlexibleArgumentParser())
    model = f"--model={MODELS / 'demo'}"
    return AsyncEngineArgs.from_cli_args(parser.parse_args([model, *flags]))


def test_grpc_is_refused() -> None:
    with pytest.raises(SystemExit) as refusal:
        configured(*PRUNE, "--grpc")
    assert str(refusal.value).startswith("vtprune: --grpc is given; allowed: the HTTP server, ")


def test_the_rust_front_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUST, "1")
    with pytest.raises(SystemExit) as refusal:
        configured(*PRUNE)
    assert str(refusal.value).startswith(f"vtprune: {RUST} is 1; allowed: 0, because the Rust ")


def test_they_are_the_operators_where_nothing_is_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUST, "1")
    assert configured("--grpc").mm_processor_kwargs is None
    monkeypatch.setenv("VLLM_VTPRUNE_DISABLE", "1")
    assert configured(*PRUNE, "--grpc").mm_processor_kwargs == {"vtprune": {}}


def test_vllms_own_server_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUST, "0")
    assert configured(*PRUNE).mm_processor_kwargs == {"vtprune": {}}
