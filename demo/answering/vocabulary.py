"""The words of the answering demo model: one token a word, lower-cased, nothing learnt.

Answers spell letters in capitals, so that the letter A and the article stay two words.
"""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vtprune_evaluate.scene_parts import COLORS, LETTERS, SHAPES
from vtprune_evaluate.scene_questions import NUMBERS

SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<image>", "USER:", "ASSISTANT:"]
UNK, BOS, EOS, PAD, IMAGE, USER, ASSISTANT = range(len(SPECIAL))
NOTHING = "nothing"
"""What a thing without a letter says of it, and tiles and the sign of what they lack."""
PLACES = ["top", "bottom", "left", "right"]
SIZES = ["small", "large"]
ORDER = ["first", "second", "third"]
_OTHER = "what which color shape letter size is are the a on of object shapes there how many where"
_OTHER += " or above below does sign say tiles in this picture image you see do ? . , : nothing"
WORDS = [*COLORS, *SHAPES, *LETTERS, *NUMBERS, *PLACES, *SIZES, *_OTHER.split(), *ORDER]
IDS = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
VISIBLE = [*COLORS, *SHAPES, *LETTERS, *PLACES, *SIZES, *ORDER, "tiles", "sign", NOTHING]
"""Words that visual tokens may resemble. All others are held about equally far from every one."""
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


def tokenizer() -> PreTrainedTokenizerFast:
    """The same ids as `encode` for the generator's text, `<unk>` for other words."""
    words = Tokenizer(models.WordLevel(IDS, unk_token="<unk>"))
    words.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace("colour", "color")]
    )
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"[?.,:]"), "isolated")]
    )
    turns = [AddedToken(turn, normalized=False) for turn in ("USER:", "ASSISTANT:")]
    words.add_tokens(turns)
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
        padding_side="left",
    )
