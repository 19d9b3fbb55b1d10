"""The encoder of audio in a demo Nemotron: Parakeet's, with random weights."""

from typing import Any

import torch
from transformers import ParakeetEncoder, ParakeetEncoderConfig
from weights import shapes_of

WIDTH = 64


def sound_config() -> dict[str, Any]:
    more = {"sampling_rate": 16000, "projection_hidden_size": WIDTH, "projection_bias": False}
    found = {**_parakeet().to_dict(), **more}
    for its in ("scale_input", "attention_bias", "max_position_embeddings"):
        del found[its]  # vLLM says so itself
    return found


def _parakeet() -> ParakeetEncoderConfig:
    return ParakeetEncoderConfig(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * WIDTH,
        num_mel_bins=32,
        subsampling_conv_channels=16,
        attention_bias=False,
        convolution_bias=False,
    )


def _shapes(decoder: int) -> dict[str, torch.Size]:
    """By the published names."""
    shapes = shapes_of(ParakeetEncoder, _parakeet())
    own = {f"sound_encoder.encoder.{name}": size for name, size in shapes.items()}
    projection = {"norm.weight": (WIDTH,), "linear1.weight": (WIDTH, WIDTH)}
    projection["linear2.weight"] = (decoder, WIDTH)
    return own | {f"sound_projection.{name}": torch.Size(size) for name, size in projection.items()}


def sound_weights(decoder: int, seed: int) -> dict[str, torch.Tensor]:
    """Weights of variance 1 / inputs, in front of a decoder of that width."""
    generator = torch.Generator().manual_seed(seed)
    return {name: _drawn(name, size, generator) for name, size in _shapes(decoder).items()}


def _drawn(name: str, size: torch.Size, generator: torch.Generator) -> torch.Tensor:
    if len(size) < 2:
        is_one = name.endswith(("weight", "running_var"))
        return torch.ones(size) if is_one else torch.zeros(size)
    return torch.randn(size, generator=generator) / size[1:].numel() ** 0.5
