"""vLLM looks at the classes of all families here, not each in a process that imports vLLM."""

from __future__ import annotations

from launcher import inspect_models_in_process

inspect_models_in_process()
