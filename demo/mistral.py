"""Writes a demo Mistral Small 3 in its transformers form."""

from pathlib import Path

from shapes import HEAD_SIZE, PATCH_SIZE, MistralShape
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import (
    GenerationConfig,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
    PreTrainedTokenizerFast,
)
from weights import draw_under_own_names, save_weights, shapes_of

HERE = Path(__file__).parent
SPECIAL = [
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    *("<pad>", "[IMG]", "[IMG_BREAK]", "[IMG_END]"),
]
BOS, EOS, PAD, IMAGE = (SPECIAL.index(token) for token in ("<s>", "</s>", "<pad>", "[IMG]"))
WIDTH, MERGE = 128, 2


def config(shape: MistralShape) -> Mistral3Config:
    return Mistral3Config(
        architectures=["Mistral3ForConditionalGeneration"],
        text_config={
            "model_type": "mistral",
            "vocab_size": VOCABULARY,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": shape.text_layers,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "num_key_value_heads": WIDTH // HEAD_SIZE,
            "head_dim": HEAD_SIZE,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "sliding_window": None,
            "tie_word_embeddings": False,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "dtype": "float32",
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 4,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "image_size": shape.longest,
            "patch_size": PATCH_SIZE,
            "hidden_act": "silu",
        },
        image_token_index=IMAGE,
        spatial_merge_size=MERGE,
        multimodal_projector_bias=False,
        projector_hidden_act="gelu",
        vision_feature_layer=-1,
        tie_word_embeddings=False,
        dtype="float32",
    )


def save_processor(shape: MistralShape, words: PreTrainedTokenizerFast, folder: Path) -> None:
    processor = PixtralProcessor(
        image_processor=PixtralImageProcessor(
            size={"longest_edge": shape.longest}, patch_size=PATCH_SIZE
        ),
        tokenizer=words,
        patch_size=PATCH_SIZE,
        spatial_merge_size=MERGE,
        chat_template=(HERE / "mistral_template.jinja").read_text(),
    )
    processor.save_pretrained(folder)


def write(shape: MistralShape, folder: Path) -> None:
    settings = config(shape)
    words = tokenizer_of(
        SPECIAL,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    settings.save_pretrained(folder)
    GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD).save_pretrained(folder)
    save_processor(shape, words, folder)
    shapes = shapes_of(Mistral3ForConditionalGeneration, settings)
    save_weights(draw_under_own_names(shapes, shape.seed, unspoken_ids(words)), folder)
