"""Shapes of a vision encoder's parameters by name, as CLIP and SigLIP have them: of demo models for
which transformers has no class."""

from __future__ import annotations

__all__ = ["encoder_layers", "linear", "norm"]


def encoder_layers(prefix: str, layers: int, width: int) -> dict[str, tuple[int, ...]]:
    """Of the layers `<prefix>.<number>`, whose MLPs are twice as wide as they are."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number in range(layers):
        layer = f"{prefix}.{number}"
        shapes |= norm(f"{layer}.layer_norm1", width) | norm(f"{layer}.layer_norm2", width)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{layer}.self_attn.{name}", width, width)
        shapes |= linear(f"{layer}.mlp.fc1", width, 2 * width)
        shapes |= linear(f"{layer}.mlp.fc2", 2 * width, width)
    return shapes


def linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
