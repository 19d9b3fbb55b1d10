"""The tokenizer of the demo models: byte-level BPE, trained on corpus.txt.

Byte-level, so that every string round-trips; trained at build time, so that no binary is stored.
"""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
VOCABULARY = 4096
# In this order, so that their ids are 0 to 4.
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
UNK, BOS, EOS, PAD, IMAGE = range(len(SPECIAL))


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Train LLaVA's on the corpus; the same corpus gives the same ids."""
    bpe = train_bpe(SPECIAL)
    bpe.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
        padding_side="left",
    )


def tokenizer_of(special: list[str], **more: Any) -> PreTrainedTokenizerFast:
    """Of another model: its special tokens first; `more` says which ends a turn, and so on."""
    return PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(special),
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
        **more,
    )


def train_bpe(special: list[str]) -> Tokenizer:
    """Train on the corpus, with these tokens first."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=1,
        show_progress=False,
    )
    bpe.train([str(HERE / "corpus.txt")], trainer)
    assert bpe.get_vocab_size() == VOCABULARY, "the corpus is too short for the vocabulary"
    return bpe


def unspoken_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The ids that are not a space and letters: specials, single bytes, the middles of words."""
    texts = (tokenizer.decode([i]) for i in range(VOCABULARY))
    return [i for i, text in enumerate(texts) if not (text[0] == " " and text[1:].isalpha())]


def chat_template() -> str:
    return (HERE / "chat_template.jinja").read_text()
