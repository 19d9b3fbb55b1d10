"""Our flags on vLLM's command line, and the model configuration made with them.

Replaces: `EngineArgs.add_cli_args`, `from_cli_args` and `create_model_config`.
Why: vLLM has no hook for a plugin's own options, nor one before the model configuration is made.
Relies on: `AsyncEngineArgs` calling all three on `EngineArgs`, too.
vLLM versions: 0.31 to 0.33.
Goes when: a plugin can register options.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vllm_pruner.compat.patching import Patch, apply

if TYPE_CHECKING:
    import argparse

    from vllm.config import ModelConfig
    from vllm.engine.arg_utils import EngineArgs

__all__ = ["patch_engine_args"]


def patch_engine_args(
    add_arguments: Callable[[argparse.ArgumentParser], None],
    fold_arguments: Callable[[EngineArgs, argparse.Namespace], None],
    configure: Callable[[EngineArgs, Callable[[], ModelConfig]], ModelConfig],
) -> None:
    """Extend vLLM's engine arguments. Safe to call again.

    Args:
        add_arguments: adds flags to the parser.
        fold_arguments: called with the engine arguments made from the parsed flags.
        configure: called instead of `create_model_config`; its second argument is the original.

    Raises:
        RuntimeError: this vLLM lacks one of the three methods.
    """
    from vllm.engine.arg_utils import EngineArgs

    def with_flags(add: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def add_cli_args(parser: Any) -> Any:
            parser = add(parser)
            add_arguments(parser)
            return parser

        return add_cli_args

    def with_settings(parse: Callable[..., EngineArgs]) -> Callable[..., EngineArgs]:
        def from_cli_args(cls: type[EngineArgs], args: argparse.Namespace) -> EngineArgs:
            engine_args = parse(cls, args)
            fold_arguments(engine_args, args)
            return engine_args

        return from_cli_args

    def with_pruning(create: Callable[..., ModelConfig]) -> Callable[..., ModelConfig]:
        def create_model_config(self: EngineArgs) -> ModelConfig:
            return configure(self, functools.partial(create, self))

        return create_model_config

    apply(
        Patch(EngineArgs, "add_cli_args", with_flags),
        Patch(EngineArgs, "from_cli_args", with_settings),
        Patch(EngineArgs, "create_model_config", with_pruning),
    )
