"""What happens when a pruned server's configuration is made: the model's classes are replaced, the
settings are checked against the model, and the request's half of pruning is installed.

`plugin` imports it once there are settings, since it loads vLLM's models.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vllm_pruner import compat, envs
from vllm_pruner.families import registry
from vllm_pruner.prompt import (
    announcement,
    api_servers,
    counts,
    encoder_only,
    engine_flags,
    serving,
)
from vllm_pruner.settings.bounds import fault_on
from vllm_pruner.settings.defaults import EMPTY_RATE, floor_of, names_budget
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.keys import KEY
from vllm_pruner.settings.moving import least_fault
from vllm_pruner.settings.server import ServerConfig

if TYPE_CHECKING:
    from vllm.config import ModelConfig
    from vllm.engine.arg_utils import EngineArgs

__all__ = ["advise", "check", "install", "replace_classes", "with_defaults"]

logger = logging.getLogger("vllm.vtprune")


def replace_classes(engine_args: EngineArgs) -> None:
    """Have vLLM load our classes for the architectures that we prune.

    Raises:
        ConfigError: the operator has replaced one of them too, or has vLLM load none of them.
    """
    if engine_args.model_impl not in ("auto", "vllm"):
        raise ConfigError(
            f"model_impl is {engine_args.model_impl!r}; allowed: 'auto' or 'vllm', whose classes "
            "vtprune replaces; with another images would stay unpruned"
        )
    classes, overrides = registry.classes(), engine_args.model_class_overrides
    # Our classes are there already if these arguments have been configured before.
    taken = [name for name in classes if overrides.get(name, classes[name]) != classes[name]]
    if taken:
        raise ConfigError(
            f"model_class_overrides has {', '.join(taken)}; allowed: architectures that vtprune "
            "does not replace itself"
        )
    engine_args.model_class_overrides = {**overrides, **classes}


def with_defaults(engine_args: EngineArgs, model_config: ModelConfig) -> ServerConfig:
    """Return the settings, with the family's method and rate where the operator named none.

    These are also written to `mm_processor_kwargs`, where every process reads the settings.

    Raises:
        ConfigError: the settings cannot be used, such as options of another method.
    """
    family = registry.family_of(model_config.hf_config)
    kwargs = engine_args.mm_processor_kwargs or {}
    settings = {"method": family.default_method, **kwargs[KEY]}
    if not names_budget(settings):
        is_of_empty = floor_of(settings) == "content"
        settings["rate"] = EMPTY_RATE if is_of_empty else family.default_rate
    kwargs = {**kwargs, KEY: settings}
    engine_args.mm_processor_kwargs = kwargs
    model_config.get_multimodal_config().mm_processor_kwargs = kwargs
    return ServerConfig.parse(settings)


def check(config: ServerConfig, engine_args: EngineArgs, model_config: ModelConfig) -> int:
    """Refuse what this model or these flags of vLLM do not allow.

    Returns:
        The most visual tokens that an image can have, unpruned.

    Raises:
        ConfigError: the first fault.
    """
    tokens = registry.visual_tokens(model_config, config)
    registry.check_videos(model_config, config)
    engine_flags.check(registry.family_of(model_config.hf_config), engine_args, config)
    if not config.off and (fault := fault_on(config.limits, config, tokens)):
        raise fault
    if fault := least_fault(config.limits, config, config.rate_under_load, tokens):
        raise fault
    if encoder_only.lacks_language_model(model_config, engine_args):
        videos = registry.family_of(model_config.hf_config).videos
        found = encoder_only.fault(config) or encoder_only.video_fault(config.of_video(), videos)
        if found:
            raise found
    try:
        envs.log_every()
        envs.method_seconds()
        envs.trial()
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return tokens


def install(
    config: ServerConfig, engine_args: EngineArgs, model_config: ModelConfig, tokens: int
) -> None:
    """Install what requests need in this process, and say what is served.

    Args:
        config: the operator's settings.
        engine_args: vLLM's arguments.
        model_config: the configuration made from them.
        tokens: what `check` returned.
    """
    serving.install(config, model_config)
    if engine_args.otlp_traces_endpoint is not None:
        compat.patch_tracing(counts.span_attributes)
    announcement.announce(config, model_config, tokens)


def advise(engine_args: EngineArgs) -> None:
    """Log what more API servers would gain, on a machine whose cores a GPU leaves free."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        return
    engines = engine_args.data_parallel_size_local or engine_args.data_parallel_size
    workers = engine_args.tensor_parallel_size * engine_args.pipeline_parallel_size
    if said := api_servers.advice(engines, workers, api_servers.cores()):
        logger.info("vtprune: %s", said)
