"""The text that asks about an image, found among the token ids of a whole conversation."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoTokenizer
from vllm_process import MODELS

from vllm_pruner.prompt.message_text import MessageText

IMAGE = {"type": "image"}


@pytest.fixture(scope="module", params=["demo", "demo-smolvlm", "demo-qwen2.5"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """One whose template takes words or parts, one that reads parts only, and one that writes marks
    around an image."""
    return AutoTokenizer.from_pretrained(MODELS / request.param)


def _texts(tokenizer: Any, conversation: list[dict[str, Any]]) -> list[str]:
    image, *marks = tokenizer.convert_tokens_to_ids(_around_image(tokenizer))
    rendered = tokenizer.apply_chat_template(
        conversation, tokenize=False, add_generation_prompt=True
    )
    prompt = tokenizer.encode(rendered)
    texts = MessageText(tokenizer, image, frozenset(marks)).of_images(prompt)
    return [tokenizer.decode(ids) for ids in texts]


def _around_image(tokenizer: Any) -> list[str]:
    """The token of an image, then its marks."""
    marked = ["<|image_pad|>", "<|vision_start|>", "<|vision_end|>"]
    return marked if marked[0] in tokenizer.get_vocab() else ["<image>"]


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


def test_an_image_at_the_end_has_the_text_before_it(tokenizer: Any) -> None:
    """The line break that the template writes after every image is none."""
    (text,) = _texts(tokenizer, [_user("What is this?", IMAGE)])
    assert text.strip() == "What is this?"


def test_images_at_the_end_share_what_is_before_them_in_their_message(tokenizer: Any) -> None:
    turns = [_user("Whose cat?", IMAGE), _assistant("Mine."), _user("And these two?", IMAGE, IMAGE)]
    texts = [" ".join(text.split()) for text in _texts(tokenizer, turns)]
    assert texts == ["Whose cat?", "And these two?", "And these two?"]


def test_an_image_alone_in_its_message_has_no_text(tokenizer: Any) -> None:
    system = {"role": "system", "content": [{"type": "text", "text": "You are kind."}]}
    turns = [system, _user("Be brief."), _assistant("Yes."), _user(IMAGE), _assistant("A cat.")]
    assert _texts(tokenizer, [*turns, _user("Of which colour?")]) == [""]


def test_a_text_too_long_to_search_is_none(tokenizer: Any) -> None:
    assert _texts(tokenizer, [_user("word " * 1100, IMAGE)]) == [""]


def test_without_a_template_the_message_ends_with_the_prompt(tokenizer: Any) -> None:
    image = tokenizer.convert_tokens_to_ids(_around_image(tokenizer)[0])

    class Bare:
        """The same tokenizer without its template."""

        chat_template = None
        decode = staticmethod(tokenizer.decode)

    ids = tokenizer.encode("USER: one ASSISTANT: two", add_special_tokens=False)
    assert MessageText(Bare(), image).of_images([image, *ids]) == [tuple(ids)]
