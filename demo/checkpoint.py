"""Writes one demo model the way the published LLaVA checkpoints are laid out."""

from pathlib import Path

from geometry import llava_config, pinpoints
from shapes import PATCH_SIZE, Shape
from tokenizer import BOS, EOS, PAD, chat_template, train_tokenizer, unspoken_ids
from transformers import (
    CLIPImageProcessor,
    GenerationConfig,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
)
from weights import draw_weights, save_weights


def image_processor(
    shape: Shape,
) -> CLIPImageProcessor | LlavaNextImageProcessor | SiglipImageProcessor:
    square = {"height": shape.image_size, "width": shape.image_size}
    clip = {"size": {"shortest_edge": shape.image_size}, "crop_size": square}
    if shape.grids:
        return LlavaNextImageProcessor(**clip, image_grid_pinpoints=pinpoints(shape))
    if shape.tower == "siglip":
        return SiglipImageProcessor(size=square)
    return CLIPImageProcessor(**clip)


def save_processor(shape: Shape, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Tokenizer, image processor and chat template, in the files vLLM and transformers look for."""
    images = image_processor(shape)
    kind = LlavaNextProcessor if shape.grids else LlavaProcessor
    processor = kind(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy=shape.strategy,
        num_additional_image_tokens=1 if shape.tower == "clip" else 0,
        image_token="<image>",
        chat_template=chat_template(),
    )
    processor.save_pretrained(folder)
    images.save_pretrained(folder)


def write(shape: Shape, folder: Path) -> None:
    config = llava_config(shape)
    config.save_pretrained(folder)
    GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD).save_pretrained(folder)
    tokenizer = train_tokenizer()
    save_processor(shape, tokenizer, folder)
    if shape.seed is not None:
        weights = draw_weights(config, shape.seed, unspoken_ids(tokenizer))
        save_weights(weights, folder)
