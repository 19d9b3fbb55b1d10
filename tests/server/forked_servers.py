"""Run a script of this repository whose servers are forked: `forked_servers.py SCRIPT ARGUMENTS`.

The script and its servers are what they are; each server only finds vLLM imported.
"""

from __future__ import annotations

import runpy
import sys

from forked import ForkedProcess
from vllm_process import VllmProcess


def _launch(server: VllmProcess, log: int) -> ForkedProcess:
    return ForkedProcess(server._command, server._environment, log, log)


if __name__ == "__main__":
    VllmProcess._launch = _launch  # type: ignore[assignment, method-assign]
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
