"""Images and videos that one server renders and another one answers.

Replaces: `_extract_mm_features` of `ServingRender` and of `ServingDerender`, and
`mm_kwargs_from_features` where `/inference/v1/generate` calls it.
Why: between scale-out servers (`vllm launch render`, `--enable-scale-out`) an item travels with
what its processor made of it. vLLM does not ask who that was.
Relies on: `_extract_mm_features` taking the engine's input first; both making, or returning, items
by modality, whose fields are those of the processor.
vLLM versions: 0.31 to 0.33.
Goes when: vLLM compares the processors of both servers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm_pruner.compat.patching import Patch, apply

__all__ = ["patch_rendered"]

_Items = dict[str, list[Any]]


def patch_rendered(marked: Callable[[Any], Any], checked: Callable[[_Items], _Items]) -> None:
    """Intercept items on their way from and to another server. Safe to call again.

    Args:
        marked: returns the engine's input that is sent, given vLLM's.
        checked: returns the items that came, by modality; None stands for one that the engine has.

    Raises:
        RuntimeError: this vLLM lacks one of the functions.
    """
    from vllm.entrypoints.scale_out.derender.serving import ServingDerender
    from vllm.entrypoints.scale_out.render.serving import ServingRender
    from vllm.entrypoints.scale_out.token_in_token_out import serving

    def sending(extract: Callable[..., Any]) -> Callable[..., Any]:
        def _extract_mm_features(self: Any, engine_input: Any, **kwargs: Any) -> Any:
            return extract(self, marked(engine_input), **kwargs)

        return _extract_mm_features

    def receiving(parse: Callable[..., _Items]) -> Callable[..., _Items]:
        return lambda features: checked(parse(features))

    apply(
        Patch(ServingRender, "_extract_mm_features", sending),
        Patch(ServingDerender, "_extract_mm_features", sending),
        Patch(serving, "mm_kwargs_from_features", receiving),
    )
