"""The vocabulary of the answering demo model: one token per word, nothing learned.

Words are lower-case, but letters in answers are capitals, so that the answer A differs from "a".
"""

from __future__ import annotations

from collections.abc import Mapping

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vtprune_evaluate.scene_parts import COLORS, LETTERS, SHAPES
from vtprune_evaluate.scene_questions import NUMBERS

SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<image>", "USER:", "ASSISTANT:"]
UNK, BOS, EOS, PAD, IMAGE, USER, ASSISTANT = range(len(SPECIAL))
NOTHING = "nothing"
"""The label where a thing has no letter, and where tiles and the sign have no such property."""
PLACES = ["top", "bottom", "left", "right"]
SIZES = ["small", "large"]
ORDER = ["first", "second", "third"]
_OTHER = "what which color shape letter size is are the a on of object shapes there how many where"
_OTHER += " or above below does sign say tiles in this picture image you see do ? . , : nothing"
WORDS = [*COLORS, *SHAPES, *LETTERS, *NUMBERS, *PLACES, *SIZES, *_OTHER.split(), *ORDER]
IDS = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
VISIBLE = [*COLORS, *SHAPES, *LETTERS, *PLACES, *SIZES, *ORDER, "tiles", "sign", NOTHING]
"""Words that visual tokens may resemble. `flat_loss` keeps all other words about equally far from
every visual token."""
QWEN = {
    **{"<unk>": UNK, "<|im_start|>": BOS, "<|im_end|>": EOS, "<|endoftext|>": PAD},
    **{"<|image_pad|>": IMAGE, "user": USER, "assistant": ASSISTANT},
    **{name: len(IDS) + i for i, name in enumerate(
        ("<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
    )},
}  # fmt: skip
"""Ids of Qwen's markers of turns and pictures; three of them follow the words' ids."""
CLOSING = (EOS, BOS, ASSISTANT)
"""Tokens between a question and its answer in Qwen's template."""
CHAT_TEMPLATE = """\
{{- '<s>' -}}
{%- for message in messages if message['role'] != 'system' -%}
  {{- message['role'].upper() + ': ' -}}
  {%- if message['content'] is string -%}
    {{- message['content'] -}}
  {%- else -%}
    {%- for part in message['content'] if part['type'].startswith('image') -%}
      {{- '<image>\\n' -}}
    {%- endfor -%}
    {%- for part in message['content'] if part['type'] == 'text' -%}
      {{- part['text'] -}}
    {%- endfor -%}
  {%- endif -%}
  {{- ' ' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- 'ASSISTANT:' -}}
{%- endif -%}
"""


def encode(text: str) -> list[int]:
    """The ids of a question or an answer that the generator wrote."""
    return [IDS[word] for word in text.replace("?", " ?").split()]


def _splitter(ids: Mapping[str, int], turns: list[str]) -> Tokenizer:
    words = Tokenizer(models.WordLevel(dict(ids), unk_token="<unk>"))
    words.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace("colour", "color")]
    )
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"[?.,:]"), "isolated")]
    )
    words.add_tokens([AddedToken(turn, normalized=False) for turn in turns])
    return words


def tokenizer(ids: Mapping[str, int] = IDS) -> PreTrainedTokenizerFast:
    """A tokenizer with `encode`'s ids for the generator's text, and `<unk>` for other words."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_splitter(ids, ["USER:", "ASSISTANT:"]),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
        padding_side="left",
    )


def qwen_tokenizer(words: Mapping[str, int] = IDS) -> PreTrainedTokenizerFast:
    """As `tokenizer`, with the markers of Qwen's conversations."""
    ids = {word: i for word, i in words.items() if word not in SPECIAL} | QWEN
    return PreTrainedTokenizerFast(
        tokenizer_object=_splitter(ids, []),
        unk_token="<unk>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[name for name in QWEN if name.startswith("<|")],
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
