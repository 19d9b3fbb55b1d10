"""The `vllm.general_plugins` entry point: adds the flags to vLLM, and gives a configured server the
pruning model class.

`register` runs in the API server, the engine core, every worker and the process that inspects
models, possibly several times. What it installs is inert until a configuration holds settings
under `mm_processor_kwargs["vtprune"]`; from there on vLLM's own configuration carries everything
(`model_class_overrides` for the class, `mm_processor_kwargs` for the settings) to every process.
"""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

from vllm_pruner import compat, envs
from vllm_pruner.methods.faults import MethodFault
from vllm_pruner.settings import cli
from vllm_pruner.settings.bounds import fault_on
from vllm_pruner.settings.config import names_budget
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.keys import KEY, settings_in
from vllm_pruner.settings.moving import least_fault
from vllm_pruner.settings.server import ServerConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllm.config import ModelConfig
    from vllm.engine.arg_utils import EngineArgs

__all__ = ["register"]

logger = logging.getLogger("vllm.vtprune")
"""Below vLLM's own logger, so that the lines appear in its format and honour its level."""

_FROM_CLI = "_vtprune_from_cli"
"""Marks engine arguments made from a command line, whose errors end the process with a sentence
instead of a traceback."""

_ONE_API_SERVER = "_vtprune_one_api_server"
"""Marks engine arguments of a command line that leaves the number of API servers to vLLM."""


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


def _classes() -> dict[str, str]:
    from vllm_pruner.families import registry

    return registry.classes()


def _fold_arguments(engine_args: EngineArgs, args: argparse.Namespace) -> None:
    """Put the command line's settings into `mm_processor_kwargs`, as the offline interface does."""
    try:
        config = cli.settings(args)
    except ConfigError as error:
        raise SystemExit(f"vtprune: {error}") from None
    if config is None:
        return
    kwargs, settings = engine_args.mm_processor_kwargs or {}, config.model_dump(exclude_none=True)
    if not names_budget(cli.given(args)):
        del settings["rate"]  # the family's default applies once the model is known
    if kwargs.get(KEY, settings) != settings:
        raise SystemExit(f"vtprune: --mm-processor-kwargs has {KEY!r} beside --plugin vtprune")
    engine_args.mm_processor_kwargs = {**kwargs, KEY: settings}
    # Further API servers receive the parsed arguments and read them before they load any plugin.
    args.mm_processor_kwargs = engine_args.mm_processor_kwargs
    setattr(engine_args, _FROM_CLI, True)
    alone = getattr(args, "api_server_count", 1) is None and not getattr(args, "headless", False)
    setattr(engine_args, _ONE_API_SERVER, alone)


def _configure(engine_args: EngineArgs, original: Callable[[], ModelConfig]) -> ModelConfig:
    """Build the model configuration, with the pruning class in place of the stock one."""
    settings = settings_in(engine_args)
    if settings is None:
        return original()
    if envs.disabled():
        logger.warning("vtprune: VLLM_VTPRUNE_DISABLE is set; images are served unpruned")
        kwargs = {k: v for k, v in (engine_args.mm_processor_kwargs or {}).items() if k != KEY}
        engine_args.mm_processor_kwargs = kwargs or None
        return original()
    try:
        return _create_pruned(engine_args, original, ServerConfig.parse(settings))
    except ConfigError as error:
        if getattr(engine_args, _FROM_CLI, False):
            raise SystemExit(f"vtprune: {error.at_start(cli.FLAGS)}") from None
        raise
    except MethodFault as error:
        if getattr(engine_args, _FROM_CLI, False):
            raise SystemExit(f"vtprune: {error}") from error
        raise


def _create_pruned(
    engine_args: EngineArgs, original: Callable[[], ModelConfig], config: ServerConfig
) -> ModelConfig:
    compat.check(compat.Process.SERVER)
    if not compat.is_known():
        logger.warning("vtprune: this vLLM is newer than any that vtprune was checked on")
        envs.ask_for_canary()
    if engine_args.otlp_traces_endpoint is not None:
        compat.check(compat.Process.TRACING)
    from vllm_pruner.families import registry
    from vllm_pruner.prompt import announcement, chat, encoder_only, engine_flags, serving

    classes = registry.classes()
    overrides = engine_args.model_class_overrides
    # Our classes are there already if these arguments have been configured before.
    taken = [name for name in classes if overrides.get(name, classes[name]) != classes[name]]
    if taken:
        raise ConfigError(
            f"model_class_overrides has {', '.join(taken)}; allowed: architectures that vtprune "
            "does not replace itself"
        )
    engine_args.model_class_overrides = {**overrides, **classes}
    model_config = original()
    family = registry.family_of(model_config.hf_config)
    config = _with_rate(config, family.default_rate, engine_args, model_config)
    tokens = registry.visual_tokens(model_config, config)
    registry.check_videos(model_config, config)
    engine_flags.check(family, engine_args, config)
    if not config.off and (fault := fault_on(config.limits, config, tokens)):
        raise fault
    if fault := least_fault(config.limits, config, config.rate_under_load, tokens):
        raise fault
    alone = encoder_only.lacks_language_model(model_config, engine_args)
    if alone and (fault := encoder_only.fault(config)):
        raise fault
    try:
        envs.log_every()
        envs.method_seconds()
    except ValueError as error:
        raise ConfigError(str(error)) from None
    serving.install(config)
    if engine_args.otlp_traces_endpoint is not None:
        compat.patch_tracing(chat.span_attributes)
    announcement.announce(config, model_config, tokens)
    if getattr(engine_args, _ONE_API_SERVER, False):
        _advise(engine_args)
    return model_config


def _with_rate(
    config: ServerConfig, rate: float, engine_args: EngineArgs, model_config: ModelConfig
) -> ServerConfig:
    """Return the settings, with the family's default rate if the operator named no budget.

    The rate is also written to `mm_processor_kwargs`, where every process reads the settings.
    """
    kwargs = engine_args.mm_processor_kwargs or {}
    if names_budget(kwargs[KEY]):
        return config
    kwargs = {**kwargs, KEY: {**kwargs[KEY], "rate": rate}}
    engine_args.mm_processor_kwargs = kwargs
    model_config.get_multimodal_config().mm_processor_kwargs = kwargs
    return ServerConfig.parse(kwargs[KEY])


def _advise(engine_args: EngineArgs) -> None:
    """Log what more API servers would gain, on a machine whose cores a GPU leaves free."""
    from vllm.platforms import current_platform

    from vllm_pruner.prompt import api_servers

    if current_platform.is_cpu():
        return
    engines = engine_args.data_parallel_size_local or engine_args.data_parallel_size
    workers = engine_args.tensor_parallel_size * engine_args.pipeline_parallel_size
    if said := api_servers.advice(engines, workers, api_servers.cores()):
        logger.info("vtprune: %s", said)
