"""Random weights whose answers depend on the picture, under the names of the LLaVA checkpoints.

The usual initialisation (std 0.02) gives uniform attention and one answer to everything. Here each
matrix keeps the variance of its input, and queries and keys are scaled until attention has clear
favourites, so that the answer hangs on which tokens are there.
"""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
)

# (pattern, gain): standard deviation of a matrix is gain / sqrt(inputs); the first match counts.
# Chosen by a sweep: lower ones repeat one word or ignore the picture, higher ones change the
# answer at the loss of a single visual token.
_GAINS = (
    (r"(language|text)_model.*(q|k)_proj\.weight", 1.7),  # attention logits of standard deviation 3
    (
        r"(q|k)_proj\.weight|(attn\.qkv|wqkv)\.weight|(resampler|resblocks\.\d+)\.attn\.in_proj",
        1.4,
    ),  # and 2: patches have favourites
    (
        r"linear_(1|2)\.weight|merger.*\.weight|mlp1\.(1|3)\.weight|modality_projection|"
        r"mm_projector\.proj|resampler\.proj|vit_large_projector",
        0.7,
    ),  # visual tokens about as large as words
    (r"lm_head\.weight", 3.0),  # a clear first choice
    (r"weight|experts", 1.0),
)
# GELU's output has a positive mean, which would give all tokens one direction: cancel it.
_AFTER_GELU = (
    r"(fc2|linear_2|merger\.mlp\.2|mlp1\.3|mm_projector\.proj\.2|_linear\.2|aligner\.w2|mlp\.c_proj)"
    r"\.weight"
)
# Tables have no inputs to divide by.
_TABLES = {
    "embed_tokens.weight": 1.0,
    "position_embedding.weight": 0.5,
    "pos_embed.weight": 0.5,
    "pos_emb.weight": 0.5,
    "sam_model.pos_emb": 0.5,
    "rel_pos_h": 0.1,
    "rel_pos_w": 0.1,
    "patch_generator.pos_embed": 0.5,
    "position_embedding_table": 0.5,
    "embeddings.position_embedding": 0.5,
    "embeddings.position_embeddings": 0.5,
    "positional_embedding_vlm": 0.5,
    "vision_model.positional_embedding": 0.5,
    "embeddings.cls_token": 1.0,
    "class_embedding": 1.0,
    "cls_token.token": 1.0,
    **dict.fromkeys(
        ["image_start", "image_end", "image_pad", "image_newline", "view_seperator"], 1.0
    ),
    "resampler.query": 1.0,
}


def _draw(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    for table, std in _TABLES.items():
        if name.endswith(table):
            return torch.randn(shape, generator=generator) * std
    if re.search(r"(q|k)_(layer)?norm\.weight", name):  # Qwen3, LFM2 normalise queries and keys
        return torch.full(shape, 1.7)
    # InternVL and Step scale what a layer adds.
    if re.search(r"\.(ls|lambda_)\d$|\.ls_\d\.gamma$", name):
        return torch.ones(shape)
    if len(shape) == 1:
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    gain = next(gain for pattern, gain in _GAINS if re.search(pattern, name))
    inputs = shape[2] if _holds_all_experts(name, shape) else shape[1:].numel()
    matrix = torch.randn(shape, generator=generator) * gain / inputs**0.5
    if re.search(_AFTER_GELU, name):
        matrix -= matrix.mean(dim=1, keepdim=True)
    return matrix


def _holds_all_experts(name: str, shape: torch.Size) -> bool:
    return ".experts." in name and len(shape) == 3


def published_name(name: str) -> str:
    """transformers 5 renamed the modules; vLLM 0.32 reads the names of the published files."""
    name = name.removeprefix("model.")
    name = re.sub(r"^vision_tower\.(?!vision_model)", "vision_tower.vision_model.", name)
    name = re.sub(r"^language_model\.", "language_model.model.", name)
    return re.sub(r"^lm_head\.", "language_model.lm_head.", name)


def published_tower(name: str) -> str:
    """Of a SigLIP tower's parts, as before transformers 5."""
    return re.sub(r"(?<=^model\.vision_tower\.)(?!vision_model)", "vision_model.", name)


def draw_weights(
    config: LlavaConfig | LlavaNextConfig, seed: int, silent: list[int]
) -> dict[str, torch.Tensor]:
    """A state dict of published names; the same seed gives the same bytes.

    The ids in `silent` are never an answer's most likely token.
    """
    has_crops = isinstance(config, LlavaNextConfig)
    kind = LlavaNextForConditionalGeneration if has_crops else LlavaForConditionalGeneration
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in kind(config).state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    weights = {
        published_name(name): _draw(name, shape, generator)
        for name, shape in sorted(shapes.items())
    }
    weights["language_model.lm_head.weight"][silent] = 0
    return weights


def draw_under_own_names(
    shapes: dict[str, torch.Size], seed: int, silent: list[int], head: str = "lm_head.weight"
) -> dict[str, torch.Tensor]:
    """The same for a model whose names in `transformers` are those of the published files."""
    generator = torch.Generator().manual_seed(seed)
    weights = {name: _draw(name, shape, generator) for name, shape in sorted(shapes.items())}
    for name in weights:
        if _holds_all_experts(name, shapes[name]):  # published as [experts, inputs, outputs]
            weights[name] = weights[name].transpose(1, 2).contiguous()
    weights[head][silent] = 0
    return weights


def shapes_of(kind: Any, config: Any) -> dict[str, torch.Size]:
    """The shapes of a model's weights by name."""
    with torch.device("meta"):
        return {name: weight.shape for name, weight in kind(config).state_dict().items()}


def save_weights(
    weights: dict[str, torch.Tensor], folder: Path, name: str = "model.safetensors"
) -> None:
    file = folder / name
    save_file(weights, file, metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors writes 0600, which a container's user cannot read


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")
