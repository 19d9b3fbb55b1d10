"""What clients call their images: their own names, for one content each."""

from __future__ import annotations

import pytest

from vllm_pruner.prompt import names as module
from vllm_pruner.prompt.names import Known, Names, apart, fresh, of_holder

CAT, DOG = Known("hash of a cat", None), Known("hash of a dog", None)


def test_a_name_stands_for_what_was_sent_with_it_and_for_nothing_once_that_was_two_things() -> None:
    names = Names()
    assert names.find("image", "pet") is None
    names.note("image", "pet", CAT)
    names.note("image", "pet", CAT)
    assert names.find("image", "pet") == CAT
    assert names.find("video", "pet") is None
    for known in (DOG, CAT):
        names.note("image", "pet", known)
        assert names.find("image", "pet") is None


def test_the_names_not_used_for_longest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 2)
    names = Names()
    names.note("image", "a", CAT)
    names.note("image", "b", DOG)
    assert names.find("image", "a") == CAT
    names.note("image", "c" * 1_000_000, DOG)
    assert [names.find("image", name) for name in ("a", "b", "c" * 1_000_000)] == [CAT, None, DOG]


def test_names_of_other_holders_are_others() -> None:
    part = {"type": "image_url", "image_url": None, "uuid": 7}
    text = {"type": "text", "text": "uuid"}
    messages = [{"role": "user", "content": [part, text]}, {"role": "user", "content": "uuid"}]
    renamed = [of_holder(messages, holder)[0]["content"][0]["uuid"] for holder in ("one", "two")]
    assert len({*renamed, 7}) == 3
    assert part["uuid"] == 7, "the client's own request is changed"
    assert of_holder(messages, "one")[0]["content"][1] == text
    assert of_holder(messages, "one")[1] == messages[1]
    assert of_holder(messages, "") == messages


def test_a_fresh_name_stands_for_the_same_image_and_is_never_the_same() -> None:
    salts = set()
    for _ in range(2):
        part = {"content": [{"uuid": fresh("mine")}]}
        (message,) = of_holder([part], "holder")
        (own,) = of_holder([{"content": [{"uuid": "mine"}]}], "holder")
        name, salt = apart(message["content"][0]["uuid"])
        assert name == own["content"][0]["uuid"]
        salts.add(salt)
    assert len(salts) == 2
    assert apart(fresh(None))[0] == ""
    assert apart("mine") == ("mine", "")
