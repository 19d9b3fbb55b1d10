"""Find the text that follows an image in its message, which may be a question about it.

The system prompt and later turns are excluded, so that an image keeps the same tokens in every turn
of a conversation and the prefix cache still hits. The processor sees only a list of token ids. So
the text that ends a user's message is taken from the chat template once: render a conversation of
known words, and take what is between the user's and the assistant's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["MessageText"]

_USER, _ASSISTANT = "vtpruneuser", "vtpruneassistant"


class MessageText:
    """Finds the text of every image in a prompt."""

    def __init__(
        self, tokenizer: Any, image_token: int, marks: frozenset[int] = frozenset()
    ) -> None:
        """Find the end of a message in the chat template.

        Args:
            tokenizer: the tokenizer, with its chat template.
            image_token: id of the token that stands for an image.
            marks: ids of tokens around an image.
        """
        self._tokenizer = tokenizer
        self._image_token, self._marks = image_token, marks | {image_token}
        self._end = _end_of_message(tokenizer)

    def of_images(self, prompt: Sequence[int]) -> list[tuple[int, ...]]:
        """Return, for each image token of the prompt, the ids that follow it in its message.

        Image tokens and marks are left out; a text of only white space is empty. Without a chat
        template, a message ends with the prompt.
        """
        places = [place for place, token in enumerate(prompt) if token == self._image_token]
        texts: list[tuple[int, ...]] = []
        for place in places:
            after = [token for token in prompt[place + 1 :] if token not in self._marks]
            text = tuple(after[: self._length(after)])
            # A template's line break after an image is no question.
            texts.append(text if self._tokenizer.decode(text).strip() else ())
        return texts

    def _length(self, ids: Sequence[int]) -> int:
        """Return the number of `ids` before the end of the message."""
        if not self._end:
            return len(ids)
        place = self._tokenizer.decode(ids).find(self._end)
        if place < 0:
            return len(ids)
        return (
            bisect_right(
                range(len(ids) + 1), place, key=lambda n: len(self._tokenizer.decode(ids[:n]))
            )
            - 1
        )


def _end_of_message(tokenizer: Any) -> str:
    """Return what the chat template writes between a user's words and the assistant's, if any."""
    if not getattr(tokenizer, "chat_template", None):
        return ""
    rendered = _rendered(tokenizer, lambda words: words)
    if _USER not in rendered:  # the templates of Idefics3 and SmolVLM accept only parts
        rendered = _rendered(tokenizer, lambda words: [{"type": "text", "text": words}])
    return rendered.partition(_USER)[2].partition(_ASSISTANT)[0].strip()


def _rendered(tokenizer: Any, content: Callable[[str], Any]) -> str:
    """Render a conversation of known words; `content` makes a message's content from a word."""
    turns = {"user": _USER, "assistant": _ASSISTANT}
    messages = [{"role": role, "content": content(words)} for role, words in turns.items()]
    return str(tokenizer.apply_chat_template([*messages, messages[0]], tokenize=False))
