"""vtprune's settings in the file of vLLM's `--config`."""

from __future__ import annotations

import re
from pathlib import Path

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.cli.serve import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm_process import MODELS

from vllm_pruner import plugin

PAGE = Path(__file__).parents[2] / "docs" / "operating.md"


def test_what_the_page_shows_is_read_and_the_command_line_goes_first(tmp_path: Path) -> None:
    (written,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path / "serve.yaml"
    file.write_text(written.replace("llava-hf/llava-1.5-7b-hf", str(MODELS / "demo")))
    plugin.register()
    parser = make_arg_parser(FlexibleArgumentParser())
    args = parser.parse_args(["serve", "--config", str(file), "--prune-rate", "0.8"])
    said = AsyncEngineArgs.from_cli_args(args)
    assert said.model == str(MODELS / "demo")
    assert said.mm_processor_kwargs == {"vtprune": {"rate": 0.8, "limits": {"max_rate": 0.95}}}
