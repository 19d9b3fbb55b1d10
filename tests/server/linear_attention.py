"""Linear attention on a CPU in float32: vLLM's own there takes bfloat16 only, which is so coarse
that answers tell little of what a step began with.

A gated delta rule (arXiv 2412.06464), token by token. With q, k and v of a head behind a causal
convolution over the last tokens and SiLU, q and k of length 1 and q divided by the root of its
size, decay `exp(-exp(A) softplus(a + bias))` and strength `sigmoid(b)`:

    S = decay S
    S = S + k (strength (v - S^T k))^T
    o = S^T q
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.mamba.mamba_utils import is_conv_state_dim_first
from vllm.model_executor.layers.mamba.ops.cpu import gdn_attention
from vllm.utils.torch_utils import LayerNameType, _resolve_layer_name

__all__ = ["attend_in_float32"]


def _attended(
    mixed_qkv: torch.Tensor,
    b: torch.Tensor,
    a: torch.Tensor,
    core_attn_out: torch.Tensor,
    layer_name: LayerNameType,
) -> None:
    """In place of `cpu_gdn_attention_core`, whose signature it has."""
    context = get_forward_context()
    if context.attn_metadata is None:
        return
    layer: Any = context.no_compile_layers[_resolve_layer_name(layer_name)]
    step: Any = context.attn_metadata[layer.prefix]
    decay = torch.exp(-torch.exp(layer.A_log) * F.softplus(a + layer.dt_bias))
    gates = torch.stack([decay, torch.sigmoid(b)])
    slots, starts = (
        each.tolist()
        for each in (step.non_spec_state_indices_tensor, step.non_spec_query_start_loc)
    )
    for number in range(step.num_decodes + step.num_prefills):
        known = number < step.num_decodes or bool(step.has_initial_state[number])
        tokens = slice(*starts[number : number + 2])
        convolved = _convolved(layer, slots[number], mixed_qkv[tokens], known)
        core_attn_out[tokens] = _recurred(layer, slots[number], convolved, gates[:, tokens], known)


def _convolved(layer: Any, slot: int, rows: Any, known: bool) -> Any:
    """Return `[tokens, width]` behind the convolution, whose state are the last rows before."""
    state = layer.kv_cache[0][slot]
    state = state.T if is_conv_state_dim_first() else state
    before = state.clone() if known else torch.zeros_like(state)
    rows = torch.cat([before, rows])
    state.copy_(rows[len(rows) - len(state) :])
    made = F.conv1d(rows.T[None], layer.conv1d.weight, layer.conv1d.bias, groups=rows.shape[1])
    return F.silu(made[0].T)


def _recurred(layer: Any, slot: int, rows: Any, gates: Any, known: bool) -> Any:
    """Return `[tokens, heads, size]` of the rule, whose state is `[heads, keys, values]`."""
    query, key, value = (each[0] for each in layer.rearrange_mixed_qkv(rows))
    repeats = value.shape[1] // key.shape[1]
    query, key = (F.normalize(each, dim=-1).repeat_interleave(repeats, 1) for each in (query, key))
    query = query * query.shape[-1] ** -0.5
    stored = layer.kv_cache[1][slot].view(value.shape[1], key.shape[2], value.shape[2])
    state = stored.clone() if known else torch.zeros_like(stored)
    made = []
    for q, k, v, (decay, strength) in zip(query, key, value, gates.unbind(1), strict=True):
        state = state * decay[:, None, None]
        missed = v - torch.einsum("hkv,hk->hv", state, k)
        state = state + torch.einsum("hk,hv->hkv", k, missed * strength[:, None])
        made.append(torch.einsum("hkv,hk->hv", state, q))
    stored.copy_(state)
    return torch.stack(made)


def attend_in_float32() -> None:
    """Have vLLM's layers run it, in any dtype. Before a model is made."""
    assert not gdn_attention._CPU_GDN_ATTENTION_OPS_REGISTERED
    gdn_attention.cpu_gdn_attention_core = _attended
