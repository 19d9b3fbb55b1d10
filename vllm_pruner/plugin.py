"""The `vllm.general_plugins` entry point: adds the flags to vLLM, and gives a configured server the
pruning model class.

`register` runs in the API server, the engine core, every worker and the process that inspects
models, possibly several times. What it installs is inert until a configuration holds settings
under `mm_processor_kwargs["vtprune"]`, or a call does although the configuration has none; from
there on vLLM's own configuration carries everything
(`model_class_overrides` for the class, `mm_processor_kwargs` for the settings) to every process.
"""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING, Any

from vllm_pruner import compat, envs
from vllm_pruner.methods.faults import MethodFault
from vllm_pruner.settings import cli
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.keys import KEY, settings_in
from vllm_pruner.settings.misplaced import misspelt
from vllm_pruner.settings.server import ServerConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vllm.config import ModelConfig
    from vllm.engine.arg_utils import EngineArgs

__all__ = ["register"]

logger = logging.getLogger("vllm.vtprune")
"""Below vLLM's own logger, so that the lines appear in its format and honour its level."""


class _CommandLine(dict[str, Any]):
    """`mm_processor_kwargs` that hold a command line's settings, whose errors end the process with
    a sentence instead of a traceback. They stay with copies of the engine's arguments, which other
    attributes of these would break: `LLM.from_engine_args` passes on all that it finds."""

    alone = False
    """Whether the command line leaves the number of API servers to vLLM."""


def register() -> None:
    """Install the flags and the configuration hook; see the module's docstring.

    Raises:
        RuntimeError: this vLLM is too old, or lacks a name that vtprune relies on.
    """
    if not envs.disabled():
        compat.check_version()
    compat.check(compat.Process.EVERY)
    compat.enable_position_hook(KEY)
    compat.quiet_overrides(_classes)
    compat.patch_engine_args(cli.add_arguments, _fold_arguments, _configure)
    compat.patch_stock_processor(KEY, _untaken)


def _classes() -> dict[str, str]:
    from vllm_pruner.families import registry

    return registry.classes()


def _untaken(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse the settings of a call to an engine that was not told to prune; under the kill switch,
    which has said in the log that images stay unpruned, drop them.

    Raises:
        VLLMValidationError: the call's error; over HTTP, a 400.
    """
    from vllm.exceptions import VLLMValidationError

    if kwargs[KEY] is not None and not envs.disabled():
        raise VLLMValidationError(
            f"{KEY}: settings are given to an engine that does not prune; allowed: with "
            f"mm_processor_kwargs={{{KEY!r}: {{}}}} in LLM(...), or --plugin {KEY} for a server",
            parameter=KEY,
        )
    return {key: value for key, value in kwargs.items() if key != KEY}


def _fold_arguments(engine_args: EngineArgs, args: argparse.Namespace) -> None:
    """Put the command line's settings into `mm_processor_kwargs`, as the offline interface does."""
    try:
        settings = cli.settings(args)
    except ConfigError as error:
        raise SystemExit(f"vtprune: {error}") from None
    if settings is None:
        return
    if not envs.disabled():
        _check_front_end(args)
    kwargs = engine_args.mm_processor_kwargs or {}
    if kwargs.get(KEY, settings) != settings:
        raise SystemExit(f"vtprune: --mm-processor-kwargs has {KEY!r} beside --plugin vtprune")
    folded = _CommandLine({**kwargs, KEY: settings})
    is_left = getattr(args, "api_server_count", 1) is None
    folded.alone = is_left and not getattr(args, "headless", False)
    engine_args.mm_processor_kwargs = folded
    # Further API servers receive the parsed arguments and read them before they load any plugin.
    args.mm_processor_kwargs = folded


def _check_front_end(args: argparse.Namespace) -> None:
    from vllm_pruner.prompt import front_ends

    try:
        front_ends.check(args)
    except ConfigError as error:
        raise SystemExit(f"vtprune: {error}") from None


def _configure(engine_args: EngineArgs, original: Callable[[], ModelConfig]) -> ModelConfig:
    """Build the model configuration, with the pruning class in place of the stock one."""
    settings, given = settings_in(engine_args), engine_args.mm_processor_kwargs
    _check_keys(engine_args)
    if settings is None:
        return original()
    if envs.disabled():
        logger.warning("vtprune: VLLM_VTPRUNE_DISABLE is set; images are served unpruned")
        kwargs = {k: v for k, v in (engine_args.mm_processor_kwargs or {}).items() if k != KEY}
        engine_args.mm_processor_kwargs = kwargs or None
        return original()
    try:
        ServerConfig.check_early(settings)
        model_config = _create_pruned(engine_args, original)
    except ConfigError as error:
        if isinstance(given, _CommandLine):
            raise SystemExit(f"vtprune: {error.at_start(cli.FLAGS)}") from None
        raise
    except MethodFault as error:
        if isinstance(given, _CommandLine):
            raise SystemExit(f"vtprune: {error}") from error
        raise
    if isinstance(given, _CommandLine) and given.alone:
        from vllm_pruner import start

        start.advise(engine_args)
    return model_config


def _check_keys(engine_args: EngineArgs) -> None:
    """Refuse a key that was meant for ours: HF's processor would ignore it, and images would stay
    unpruned in silence."""
    if (found := misspelt(engine_args.mm_processor_kwargs or {})) and not envs.disabled():
        if isinstance(engine_args.mm_processor_kwargs, _CommandLine):
            raise SystemExit(found)
        raise ConfigError(found)


def _create_pruned(engine_args: EngineArgs, original: Callable[[], ModelConfig]) -> ModelConfig:
    compat.check(compat.Process.SERVER)
    if not compat.is_known():
        logger.warning("vtprune: this vLLM is newer than any that vtprune was checked on")
        envs.ask_for_canary()
    if engine_args.otlp_traces_endpoint is not None:
        compat.check(compat.Process.TRACING)
    compat.patch_model_classes(_classes)
    from vllm_pruner import start

    start.replace_classes(engine_args)
    model_config = original()
    config = start.with_defaults(engine_args, model_config)
    tokens = start.check(config, engine_args, model_config)
    start.install(config, engine_args, model_config, tokens)
    return model_config
