"""Describe the server's settings and the methods that requests may choose."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from vllm_pruner import methods
from vllm_pruner.methods.base import Method
from vllm_pruner.methods.faults import MethodFault
from vllm_pruner.settings.bounds import method_fault
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.in_tree import check_owner
from vllm_pruner.settings.video_rules import resolve_videos
from vtprune_server.protocol import ConfigResponse, MethodCard, MethodsResponse
from vtprune_server.surface import Surface

__all__ = ["describe_config", "describe_methods"]

_PACKAGES = ("vtprune", "vllm", "torch", "triton", "transformers")
_SMALL = 10_000_000
"""Parameters of a decoder, without embeddings, below which a prompt costs next to nothing."""


async def describe_config(surface: Surface) -> ConfigResponse:
    """Return the effective settings, versions, and what the selection runs on."""
    model_config = surface.engine.model_config
    return ConfigResponse(
        model=str(model_config.served_model_name or model_config.model),
        architecture=str(model_config.architecture),
        visual_tokens=surface.image_info.get_max_image_tokens(),
        shows_speed=_decoder_parameters(model_config.hf_text_config) >= _SMALL,
        settings=surface.config.model_dump(exclude_none=True),
        versions={name: found for name in _PACKAGES if (found := _version(name))},
        implementation=await surface.ask_worker("vtprune_implementation"),
    )


def _decoder_parameters(config: Any) -> int:
    """Estimate a decoder's parameters as 12 * width**2 per layer."""
    return 12 * int(config.num_hidden_layers) * int(config.hidden_size) ** 2


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def describe_methods(surface: Surface) -> MethodsResponse:
    """Return every installed method with the schema of its options."""
    return MethodsResponse(
        methods=[_card(name, _refused(surface, name)) for name in methods.names()],
        video_methods=[
            _card(name, _refused_for_videos(surface, name))
            for name in methods.names(methods.VIDEO_GROUP)
        ],
    )


def _card(name: str, refused: str | None) -> MethodCard:
    method = methods.get(name)
    return MethodCard(
        name=name,
        allowed=refused is None,
        refused=refused,
        reads_text=method.needs_text,
        description=_summary(method),
        options=_schema(method),
    )


def _refused(surface: Surface, name: str) -> str | None:
    """Return why no request can choose a method, or None."""
    if limit := method_fault(surface.config.limits, name):
        return limit.at_request()
    try:
        fault = surface.image_info.fault(PruneConfig.parse({"method": name}))
    except MethodFault as error:
        return str(error)
    except ConfigError:
        return None  # an option without a default, which a request can name
    return None if fault is None else fault.at_request()


def _refused_for_videos(surface: Surface, name: str) -> str | None:
    """Return why no request can choose a method that compares frames, or None."""
    try:
        resolve_videos(surface.image_info, {"video_method": name})
        check_owner(surface.image_info.in_tree, {"video_method": name})
    except ConfigError as error:
        return error.at_request()
    return None


def _schema(method: Method) -> dict[str, Any]:
    """Return the JSON schema of a method's options; {} if those of another package have none."""
    try:
        return method.options.model_json_schema()
    except Exception:
        if methods.package_of(method.name) is None:
            raise
        return {}


def _summary(method: Method) -> str:
    """Return the first paragraph of the docstring of the method's module, on one line."""
    import sys

    module = sys.modules.get(getattr(method.select, "__module__", ""))
    text = getattr(module, "__doc__", None) or ""
    return " ".join(text.strip().partition("\n\n")[0].split())
