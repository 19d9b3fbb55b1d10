"""Writes a demo Qwen-Omni the way the published checkpoints are laid out: the thinker alone, since
vLLM leaves the talker out."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen import (
    ENDOFTEXT,
    HERE,
    IM_END,
    IMAGE,
    SPECIAL,
    VIDEO,
    VISION_END,
    VISION_START,
    text_config,
    tokenizer,
    vision_config,
)
from qwen_relatives import Config, Weights, image_settings
from shapes import QwenShape
from tokenizer import unspoken_ids
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5OmniConfig,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3OmniMoeConfig,
    Qwen3OmniMoeProcessor,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)
from weights import draw_under_own_names, save_weights, shapes_of

AUDIO, AUDIO_START, AUDIO_END = (len(SPECIAL) + place for place in range(3))
"""Behind the demo Qwen's."""

NAMES = {
    VISION_START: "vision_bos_token",
    VISION_END: "vision_eos_token",
    IMAGE: "image_token",
    VIDEO: "video_token",
    AUDIO: "audio_token",
    AUDIO_START: "audio_bos_token",
    AUDIO_END: "audio_eos_token",
}
"""What the tokenizer calls them."""


@dataclass(frozen=True)
class Kind:
    """What differs between the two."""

    architecture: str
    config: Any
    thinker: Any
    processor: Any
    words: tuple[str, ...]
    """The tokens of `NAMES`, in its order."""

    vision: Config
    audio: Config
    token_ids: dict[str, int]


KINDS = {
    "2.5": Kind(
        "Qwen2_5OmniModel",
        Qwen2_5OmniConfig,
        Qwen2_5OmniThinkerForConditionalGeneration,
        Qwen2_5OmniProcessor,
        (
            *("<|vision_bos|>", "<|vision_eos|>", "<|IMAGE|>", "<|VIDEO|>"),
            *("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"),
        ),
        {"tokens_per_second": 25},
        {},
        {"image_token_index": IMAGE, "video_token_index": VIDEO, "audio_token_index": AUDIO},
    ),
    "3-moe": Kind(
        "Qwen3OmniMoeForConditionalGeneration",
        Qwen3OmniMoeConfig,
        Qwen3OmniMoeThinkerForConditionalGeneration,
        Qwen3OmniMoeProcessor,
        (
            *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
            *("<|audio_pad|>", "<|audio_start|>", "<|audio_end|>"),
        ),
        {"image_size": 768, "apply_vit_abs_pos_embed": True},
        {"downsample_hidden_size": 32},
        {"image_token_id": IMAGE, "video_token_id": VIDEO, "audio_token_id": AUDIO},
    ),
}


def omni_config(kind: Kind, shape: QwenShape) -> Any:
    audio = {
        "d_model": shape.text_width,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": shape.text_mlp,
        "output_dim": shape.text_width,
    }
    thinker = {
        "text_config": text_config(shape),
        "vision_config": vision_config(shape) | kind.vision,
        "audio_config": audio | kind.audio,
        "audio_start_token_id": AUDIO_START,
        "audio_end_token_id": AUDIO_END,
        **kind.token_ids,
    }
    return kind.config(
        architectures=[kind.architecture],
        thinker_config=thinker,
        enable_audio_output=False,
        dtype=shape.dtype,
    )


def omni_tokenizer(kind: Kind) -> PreTrainedTokenizerFast:
    special = [*SPECIAL, *("" for _ in range(3))]
    for place, word in zip(NAMES, kind.words, strict=True):
        special[place] = word
    return tokenizer(special, extra_special_tokens={NAMES[at]: special[at] for at in NAMES})


def save_processor(
    kind: Kind, shape: QwenShape, words: PreTrainedTokenizerFast, folder: Path
) -> None:
    template = (HERE / "omni_template.jinja").read_text()
    for ours, theirs in zip(KINDS["2.5"].words, kind.words, strict=True):
        template = template.replace(ours, theirs)
    patch = image_settings(shape)
    sizes = {name: patch[name] for name in ("patch_size", "merge_size", "temporal_patch_size")}
    kind.processor(
        image_processor=Qwen2VLImageProcessor(**patch),
        video_processor=Qwen2VLVideoProcessor(**sizes),
        feature_extractor=WhisperFeatureExtractor(feature_size=128, return_attention_mask=True),
        tokenizer=words,
        chat_template=template,
    ).save_pretrained(folder)


def write(shape: QwenShape, folder: Path) -> None:
    kind = KINDS[shape.version]
    config, words = omni_config(kind, shape), omni_tokenizer(kind)
    config.save_pretrained(folder)
    ends = {"bos_token_id": ENDOFTEXT, "eos_token_id": IM_END, "pad_token_id": ENDOFTEXT}
    GenerationConfig(**ends).save_pretrained(folder)
    save_processor(kind, shape, words, folder)
    shapes = shapes_of(kind.thinker, config.thinker_config)
    drawn = {_drawn_as(name): each for name, each in shapes.items()}
    assert shape.seed is not None
    weights = draw_under_own_names(drawn, shape.seed, unspoken_ids(words))
    own = {f"thinker.{_published_as(name)}": each for name, each in weights.items()}
    save_weights(_one_by_one(own), folder)


def _drawn_as(name: str) -> str:
    """The name by which `weights` knows what a matrix is for."""
    name = re.sub(r"^model\.", "language_model.", name)
    return re.sub(r"(visual.*\.attn\.[qk])\.", r"\1_proj.", name)


def _published_as(name: str) -> str:
    name = re.sub(r"^language_model\.", "model.", name)
    return re.sub(r"(visual.*\.attn\.[qk])_proj\.", r"\1.", name)


def _one_by_one(weights: Weights) -> Weights:
    """Each expert's matrices by themselves, as published; together they are `[experts, inputs,
    outputs]`."""
    apart: Weights = {}
    for name, weight in weights.items():
        layer, is_of_experts, matrix = name.partition("experts.")
        if not is_of_experts:
            apart[name] = weight
            continue
        names = ("gate_proj", "up_proj") if matrix == "gate_up_proj" else ("down_proj",)
        for number, expert in enumerate(weight):
            for part, each in zip(names, expert.T.chunk(len(names)), strict=True):
                apart[f"{layer}experts.{number}.{part}.weight"] = each.contiguous()
    return apart
