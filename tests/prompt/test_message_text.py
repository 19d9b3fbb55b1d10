"""The text that asks about an image, found among the token ids of a whole conversation."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoTokenizer
from vllm_process import MODELS

from vllm_pruner.prompt.message_text import MessageText

IMAGE = {"type": "image"}


@pytest.fixture(scope="module", params=["demo", "demo-smolvlm"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """One whose template takes words or parts, and one that reads parts only."""
    return AutoTokenizer.from_pretrained(MODELS / request.param)


def _texts(tokenizer: Any, conversation: list[dict[str, Any]]) -> list[str]:
    image = tokenizer.convert_tokens_to_ids("<image>")
    rendered = tokenizer.apply_chat_template(
        conversation, tokenize=False, add_generation_prompt=True
    )
    prompt = tokenizer.encode(rendered)
    return [tokenizer.decode(ids) for ids in MessageText(tokenizer, image).of_images(prompt)]


def _user(*parts: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"role": "user", "content": content}


def _assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def test_the_system_prompt_and_the_assistants_tag_are_left_out(tokenizer: Any) -> None:
    system = {"role": "system", "content": [{"type": "text", "text": "You are kind."}]}
    (text,) = _texts(tokenizer, [system, _user(IMAGE, "What is this?")])
    assert text.strip() == "What is this?"


def test_later_turns_change_nothing(tokenizer: Any) -> None:
    first = [_user(IMAGE, "What is this?")]
    second = [*first, _assistant("A cat."), _user("What colour is it?")]
    assert _texts(tokenizer, second) == _texts(tokenizer, first)


def test_images_of_one_message_share_what_follows_them(tokenizer: Any) -> None:
    texts = _texts(tokenizer, [_user("First", IMAGE, "second ", IMAGE, "same?")])
    assert [" ".join(text.split()) for text in texts] == ["second same?", "same?"]


def test_each_message_has_its_own_text(tokenizer: Any) -> None:
    turns = [_user(IMAGE, "Whose cat?"), _assistant("Mine."), _user(IMAGE, "And this dog?")]
    assert [text.strip() for text in _texts(tokenizer, turns)] == ["Whose cat?", "And this dog?"]


def test_an_image_at_the_end_has_no_text(tokenizer: Any) -> None:
    """Not even the line break that the template writes after every image."""
    assert _texts(tokenizer, [_user("What is this?", IMAGE)]) == [""]


def test_without_a_template_the_message_ends_with_the_prompt(tokenizer: Any) -> None:
    image = tokenizer.convert_tokens_to_ids("<image>")

    class Bare:
        """The same tokenizer without its template."""

        chat_template = None
        decode = staticmethod(tokenizer.decode)

    ids = tokenizer.encode("USER: one ASSISTANT: two", add_special_tokens=False)
    assert MessageText(Bare(), image).of_images([image, *ids]) == [tuple(ids)]
