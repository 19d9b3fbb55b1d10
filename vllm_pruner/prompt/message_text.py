"""Find the text that asks about an image: what follows it in its message or, if nothing does, what
stands before it there, as in OpenAI's own examples.

The system prompt and later turns are excluded, so that an image keeps the same tokens in every turn
of a conversation and the prefix cache still hits. The processor sees only a list of token ids. So
what stands around a user's words is taken from the chat template once: render a conversation of
known words, and take what is before the user's and between these and the assistant's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from os.path import commonprefix
from typing import Any

__all__ = ["MessageText"]

_USER, _ASSISTANT = "vtpruneuser", "vtpruneassistant"

_MOST = 1024
"""Tokens before an image that are searched for the start of its message, since decoding takes time:
before a longer text an image has none."""


class MessageText:
    """Finds the text of every image in a prompt."""

    def __init__(
        self,
        tokenizer: Any,
        image_token: int,
        marks: frozenset[int] = frozenset(),
        around: tuple[str, str] | None = None,
    ) -> None:
        """Find both ends of a message in the chat template.

        Args:
            tokenizer: the tokenizer, with its chat template.
            image_token: id of the token that stands for an image.
            marks: ids of tokens around an image.
            around: what stands before and after a user's words, if no template says so.
        """
        self._tokenizer = tokenizer
        self._image_token, self._marks = image_token, marks | {image_token}
        self._start, self._end = around or _around_message(tokenizer)

    def of_images(self, prompt: Sequence[int]) -> list[tuple[int, ...]]:
        """Return, for each image token of the prompt, the ids of the text that asks about it.

        Image tokens and marks are left out; a text of only white space is empty. Without a chat
        template, a message ends with the prompt, and what is before an image is none of its text.
        """
        places = [place for place, token in enumerate(prompt) if token == self._image_token]
        texts: list[tuple[int, ...]] = []
        for place in places:
            text = self._after(self._words(prompt[place + 1 :]))
            # A template's line break after an image is no question.
            if not self._tokenizer.decode(text).strip():
                text = self._before(self._words(prompt[max(0, place - _MOST) : place]))
            texts.append(tuple(text) if self._tokenizer.decode(text).strip() else ())
        return texts

    def _words(self, ids: Sequence[int]) -> Sequence[int]:
        return [token for token in ids if token not in self._marks]

    def _after(self, ids: Sequence[int]) -> Sequence[int]:
        """Return the `ids` before the end of the message."""
        place = self._tokenizer.decode(ids).find(self._end) if self._end else -1
        return ids if place < 0 else ids[: self._tokens_in(ids, place)]

    def _before(self, ids: Sequence[int]) -> Sequence[int]:
        """Return the `ids` after the last start of a message."""
        place = self._tokenizer.decode(ids).rfind(self._start) if self._start else -1
        return () if place < 0 else ids[self._tokens_in(ids, place + len(self._start)) :]

    def _tokens_in(self, ids: Sequence[int], length: int) -> int:
        """Return how many of the first `ids` make at most `length` characters."""
        counts = range(len(ids) + 1)
        return bisect_right(counts, length, key=lambda n: len(self._tokenizer.decode(ids[:n]))) - 1


def _around_message(tokenizer: Any) -> tuple[str, str]:
    """Return what the chat template writes before a user's words, whether or not a message came
    before, and between these and the assistant's; either may be empty."""
    if not getattr(tokenizer, "chat_template", None):
        return "", ""
    rendered = _rendered(tokenizer, lambda words: words)
    if _USER not in rendered:  # the templates of Idefics3 and SmolVLM accept only parts
        rendered = _rendered(tokenizer, lambda words: [{"type": "text", "text": words}])
    first, _, rest = rendered.partition(_USER)
    between, _, rest = rest.partition(_ASSISTANT)
    starts = [
        tokenizer.encode(start, add_special_tokens=False)[::-1]
        for start in (first, rest.partition(_USER)[0])
    ]
    return tokenizer.decode(commonprefix(starts)[::-1]).strip(), between.strip()


def _rendered(tokenizer: Any, content: Callable[[str], Any]) -> str:
    """Render a conversation of known words; `content` makes a message's content from a word."""
    turns = {"user": _USER, "assistant": _ASSISTANT}
    messages = [{"role": role, "content": content(words)} for role, words in turns.items()]
    return str(tokenizer.apply_chat_template([*messages, messages[0]], tokenize=False))
