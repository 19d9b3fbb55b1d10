"""What is set, and what could be."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from vllm_pruner import methods
from vllm_pruner.settings.bounds import method_fault
from vllm_pruner.settings.config import PruneConfig
from vtprune_server.protocol import ConfigResponse, MethodCard, MethodsResponse
from vtprune_server.surface import Surface

__all__ = ["describe_config", "describe_methods"]

_PACKAGES = ("vtprune", "vllm", "torch", "triton", "transformers")


async def describe_config(surface: Surface) -> ConfigResponse:
    """The effective settings, and what they run on."""
    model_config = surface.engine.model_config
    return ConfigResponse(
        model=str(model_config.served_model_name or model_config.model),
        architecture=str(model_config.architecture),
        visual_tokens=surface.image_info.get_max_image_tokens(),
        settings=surface.config.model_dump(exclude_none=True),
        versions={name: found for name in _PACKAGES if (found := _version(name))},
        implementation=await surface.ask_worker("vtprune_implementation"),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def describe_methods(surface: Surface) -> MethodsResponse:
    """Every registered method with the schema of its options."""
    return MethodsResponse(methods=[_card(surface, name) for name in methods.names()])


def _card(surface: Surface, name: str) -> MethodCard:
    method = methods.get(name)
    alone = PruneConfig(method=name)
    fault = method_fault(surface.config.limits, name) or surface.image_info.fault(alone)
    return MethodCard(
        name=name,
        allowed=fault is None,
        refused=None if fault is None else fault.at_request(),
        reads_text=method.needs_text,
        description=_summary(method),
        options=method.options.model_json_schema(),
    )


def _summary(method: Any) -> str:
    """The first line of the file that the method stands in."""
    import sys

    text = sys.modules[method.select.__module__].__doc__ or ""
    return text.strip().partition("\n")[0]
