"""The attention inside a vision tower that vLLM runs by `transformers`: Gemma 4's.

Replaces: nothing.
Why: methods read query and key of a layer. vLLM makes such a tower by `AutoModel`, so its layers
have no `MMEncoderAttention` that gets both, only a function that `transformers` looks up.
Relies on: the tower's `patch_embedder`, `encoder` and `pooler.root_hidden_size`, and its `std_bias`
and `std_scale` if its configuration says `standardize`, being used as by vLLM's
`Gemma4ForConditionalGeneration._process_image_input`; a layer's `self_attn` being a
`Gemma4VisionAttention`, called with the keywords `position_embeddings`, cosines and sines, and
`position_ids`; its modules `q_norm` and `k_norm` returning `[images, patches, heads, size]`, each
once a call; nothing but `apply_multidimensional_rope` standing between these and the attention;
`scaling`; and an attention that adds a mask of four dimensions to the logits ("sdpa", "eager").
Every rank has all heads.
vLLM versions: 0.31 to 0.33, with `transformers` 5.17 to 5.19.
Goes when: vLLM has a Gemma 4 tower of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vllm_pruner.compat.tower import module_of_layer

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["HFAttention", "hf_attention"]

_MASKED = ("sdpa", "eager")
"""Implementations that add a mask of four dimensions."""

Look = Callable[[Any, tuple["torch.Tensor", ...], dict[str, Any]], None]


def hf_attention(tower: nn.Module, layers: str, layer: int, attention: str) -> HFAttention:
    """Return the attention of a tower's layer.

    Args:
        tower: the tower of `transformers`.
        layers: path of its list of layers.
        layer: index into that list; -1 is the last one.
        attention: path of the attention module in a layer.

    Raises:
        RuntimeError: the tower has no such module, or runs it in an unknown way.
    """
    from transformers.models.gemma4.modeling_gemma4 import Gemma4VisionAttention

    found: Any = module_of_layer(Gemma4VisionAttention, tower, layers, layer, attention)
    kind = found.config._attn_implementation
    if kind not in _MASKED:
        raise RuntimeError(
            f"vtprune: attn_implementation of the vision tower is {kind!r}; "
            f"allowed: {', '.join(map(repr, _MASKED))}"
        )
    return HFAttention(found)


class HFAttention:
    """What a probe needs of an `MMEncoderAttention`: `num_heads`, `scale`, and a hook that sees
    query and key, `[images, patches, heads, size]` after rotary positions."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self.num_heads: int = module.config.num_attention_heads
        self.scale: float = module.scaling

    def register_forward_pre_hook(self, hook: Look, *, with_kwargs: bool) -> _Handles:
        """Call `hook` with query and key in each call of the attention, before it returns."""
        assert with_kwargs, "as the probe registers it"
        seen: dict[str, Any] = {}

        def note(name: str) -> Callable[..., None]:
            return lambda _module, _args, returned: seen.update({name: returned})

        def look(module: Any, _args: Any, kwargs: dict[str, Any], _returned: Any) -> None:
            hook(self, self._rotated(seen.pop("query"), seen.pop("key"), kwargs), {})

        module = self._module
        return _Handles(
            module.q_norm.register_forward_hook(note("query")),
            module.k_norm.register_forward_hook(note("key")),
            module.register_forward_hook(look, with_kwargs=True),
        )

    def _rotated(
        self, query: torch.Tensor, key: torch.Tensor, kwargs: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return query and key as the attention gets them, a key for each head of queries."""
        from transformers.models.gemma4.modeling_gemma4 import apply_multidimensional_rope

        (cos, sin), places = kwargs["position_embeddings"], kwargs["position_ids"]
        rotated = [apply_multidimensional_rope(each, cos, sin, places) for each in (query, key)]
        shared: int = self._module.num_key_value_groups
        keys = rotated[1] if shared == 1 else rotated[1].repeat_interleave(shared, dim=2)
        return rotated[0], keys


class _Handles:
    """Hooks that go together."""

    def __init__(self, *handles: Any) -> None:
        self._handles = handles

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
