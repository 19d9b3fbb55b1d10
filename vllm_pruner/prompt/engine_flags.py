"""vLLM's flags that do not work with pruning: refused when the server starts, or switched off."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vllm_pruner import compat
from vllm_pruner.settings.errors import ConfigError, SettingError

if TYPE_CHECKING:
    from vllm.engine.arg_utils import EngineArgs

    from vllm_pruner.family import Family
    from vllm_pruner.settings.server import ServerConfig

__all__ = ["check"]

logger = logging.getLogger("vllm.vtprune")


def check(family: Family, engine_args: EngineArgs, config: ServerConfig) -> None:
    """Check the flags that a server is started with, and switch off what would bypass pruning.

    Raises:
        ConfigError: one sentence with the flag, its value and what is allowed.
    """
    compilation = engine_args.compilation_config
    if compilation.compile_mm_encoder:
        raise ConfigError(
            "compile_mm_encoder is True; allowed: False, because vtprune reads the attention "
            "inside the vision tower, which compiled layers do not show"
        )
    if engine_args.enable_lora and engine_args.enable_tower_connector_lora:
        raise ConfigError(
            "enable_tower_connector_lora is True; allowed: False, because vLLM gives adapters of "
            "the tower only as many tokens as are kept, and features are cached without them"
        )
    _check_videos(family, engine_args, config)
    _check_stats(engine_args, config)
    _check_shadow_log(config)
    if config.jpeg_side is not None and not compat.reduces_files():
        raise SettingError("jpeg_side", str(config.jpeg_side), "none with vLLM 0.31")
    _set_tower_graphs(family, engine_args, config)
    if family.item_layout is not None:
        _check_positions(engine_args)
    elif engine_args.mm_encoder_tp_mode == "data" and engine_args.tensor_parallel_size > 1:
        raise ConfigError(
            "mm_encoder_tp_mode is 'data'; allowed: 'weights' with this model, whose ranks would "
            "each see the attention of their own crops only"
        )


def _check_videos(family: Family, engine_args: EngineArgs, config: ServerConfig) -> None:
    """Refuse vLLM's own pruning of videos where it would do nothing, or where we prune them."""
    in_tree = compat.in_tree(engine_args)
    if in_tree is None:
        return
    rate = f"{in_tree.rate:g}"
    if not compat.in_tree_known():
        raise SettingError("video_pruning_rate", rate, "0 with vLLM 0.31")
    if not family.in_tree:
        why = f", but beside vtprune this vLLM does not prune the videos of {family.name}"
        raise SettingError("video_pruning_rate", rate, "0", why)
    if found := in_tree.start_fault(config):
        raise found


def _check_stats(engine_args: EngineArgs, config: ServerConfig) -> None:
    """Refuse what needs the number of waiting requests, if vLLM does not report it."""
    shadow = ("shadow", f"{config.shadow:g}", "shadow 0") if config.shadow else None
    most = config.rate_under_load
    moving = None if most is None else ("rate_under_load", f"{most:g}", "no rate_under_load")
    found = shadow or moving
    if found and engine_args.disable_log_stats:
        key, value, otherwise = found
        raise ConfigError(
            f"disable_log_stats is True beside {key} {value}; allowed: False, because "
            f"vLLM's stats say whether requests wait, or {otherwise}"
        )


def _check_shadow_log(config: ServerConfig) -> None:
    """Refuse a file that cannot be written to."""
    if config.shadow_log is not None:
        try:
            open(config.shadow_log, "ab").close()
        except OSError as error:
            why = f" but {(error.strerror or 'it cannot be opened').lower()}"
            raise SettingError(
                "shadow_log", config.shadow_log, "a file to append to", why
            ) from None


def _set_tower_graphs(family: Family, engine_args: EngineArgs, config: ServerConfig) -> None:
    """Turn vLLM's CUDA graphs of the tower on if the model replays them itself, else off.

    Where all of them are vLLM's own, only what stops stock vLLM's stops them.
    """
    compilation = engine_args.compilation_config
    unasked = family.captured and family.captured_unasked
    if not (compilation.cudagraph_mm_encoder or unasked):
        return
    against = _against_graphs(family, engine_args, config)
    if against is not None and compilation.cudagraph_mm_encoder:
        logger.warning("vtprune: cudagraph_mm_encoder is switched off, because %s", against)
    compilation.cudagraph_mm_encoder = against is None


def _against_graphs(family: Family, engine_args: EngineArgs, config: ServerConfig) -> str | None:
    """Return why the tower runs without CUDA graphs; None if it runs with them."""
    if family.leaves_graphs(config):
        return _against_any(engine_args)
    if not family.captured:
        return "vtprune does not run this vision tower in CUDA graphs"
    if not config.tower_graphs:
        return "tower_graphs is false"
    if engine_args.mm_encoder_tp_mode == "data":
        return "graphs are not tested with mm_encoder_tp_mode 'data'"
    return _against_any(engine_args)


def _against_any(engine_args: EngineArgs) -> str | None:
    """Return why the tower runs without CUDA graphs, whether ours or vLLM's own."""
    if not compat.encoder_graphs_known():
        return "vtprune does not know those of vLLM 0.31"
    if engine_args.enforce_eager:
        return "enforce_eager is set"
    if not compat.on_cuda():
        return "there is no NVIDIA GPU"
    if engine_args.language_model_only:
        return "language_model_only leaves the vision tower out"
    return None


def _check_positions(engine_args: EngineArgs) -> None:
    """Refuse flags under which kept tokens would get wrong M-RoPE positions."""
    if engine_args.pipeline_parallel_size > 1:
        raise ConfigError(
            f"pipeline_parallel_size is {engine_args.pipeline_parallel_size}; allowed: 1 with this "
            "model, whose later ranks never see where kept tokens are in the image"
        )
