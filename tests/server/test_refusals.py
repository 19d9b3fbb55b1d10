"""A configuration that cannot be served stops the server at start, with one sentence."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from forked import run
from vllm_process import MODELS, command, environment

from vllm_pruner.families.registry import classes

pytestmark = pytest.mark.server

PRUNE = ["--plugin", "vtprune"]
CASES = {
    "rate-1": ([*PRUNE, "--prune-rate", "1"], "--prune-rate is 1.0; it should be less than 1"),
    "rate-nan": ([*PRUNE, "--prune-rate", "nan"], "--prune-rate is nan; it should be a finite"),
    "tokens-10000": (
        [*PRUNE, "--prune-tokens", "10000"],
        "--prune-tokens is 10000; allowed: 1 to 576",
    ),
    "unknown-method": (
        [*PRUNE, "--prune-method", "fastv"],
        "--prune-method is 'fastv'; allowed: adafv, adafv-ref, attention, ",
    ),
    "no-language-model": (
        [*PRUNE, "--prune-method", "adafv", "--mm-encoder-only"],
        "--prune-method is 'adafv', which reads the question through the language model, but "
        "--mm-encoder-only leaves that unloaded; allowed: attention, ",
    ),
    "not-asked": (["--prune-rate", "0.5"], "--prune-rate is given without --plugin vtprune"),
}


def refusal(model: str, arguments: list[str]) -> str:
    """Run `vllm serve` until it gives up and return what it said last."""
    anywhere = [*arguments, "--port", "0"]  # vLLM binds a port first, and others have its default
    with TemporaryDirectory() as folder:
        result = run(command(model, anywhere), environment(), Path(folder), timeout=240)
    return _last_line(result)


def _last_line(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode != 0
    assert "Traceback" not in result.stdout + result.stderr
    return result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(("arguments", "sentence"), CASES.values(), ids=CASES)
def test_bad_flags_are_named(arguments: list[str], sentence: str) -> None:
    last = refusal("demo", arguments)
    assert last.startswith("vtprune: ")
    assert sentence in last


def test_the_installed_command_refuses_in_the_same_words() -> None:
    """The others are forked from a process that has imported vLLM; this one is what a user runs."""
    arguments, sentence = CASES["rate-1"]
    line = command("demo", arguments)
    result = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=240)
    assert sentence in _last_line(result)


def test_a_model_that_cannot_be_pruned_is_refused(tmp_path: Path) -> None:
    """The demo's own decoder served alone: a plain Llama."""
    config = json.loads((MODELS / "demo" / "config.json").read_text())["text_config"]
    config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    model = tmp_path / "llama"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (model / file).write_bytes((MODELS / "demo" / file).read_bytes())
    last = refusal(str(model), [*PRUNE, "--load-format", "dummy"])
    allowed = ", ".join(classes())
    assert last == f"vtprune: architecture is LlamaForCausalLM; allowed: {allowed}"
