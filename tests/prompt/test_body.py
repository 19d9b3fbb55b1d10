"""A key at the top of a body that was meant for ours is never ignored."""

from __future__ import annotations

from typing import Any

import pytest
from vllm.exceptions import VLLMValidationError

from vllm_pruner.prompt.body import check_beside, check_keys, meant, refuse_without_images

MEANT = ["vtprun", "vtprunes", "vt_prune", "VTPrune", "vptrune", "vtprune_", "prune"]
MEANT += ["pruned", "prunes", "vtprune_rate", "vtprune.rate", "prune_rate", "vtprune_settings"]
OTHERS = [
    "rate",
    "metadata",
    "prompt_logprobs",
    "user",
    "provider",
    "transforms",
    "v",
    "",
    "prompt",
    "truncate",
    "tune",
    "true",
]


@pytest.mark.parametrize("key", MEANT)
def test_a_key_like_ours_is_refused_with_ours(key: str) -> None:
    with pytest.raises(VLLMValidationError) as caught:
        check_keys({key: {"rate": 0.5}})
    told = f"vtprune: {key} is given but there is no such key; allowed: vtprune at the top of the"
    assert told in str(caught.value)


@pytest.mark.parametrize("key", OTHERS)
def test_other_keys_are_vllms_to_judge(key: str) -> None:
    check_keys({key: {"rate": 0.5}, "vtprune": {}})
    assert meant({key: 1}) == {}


def test_our_key_is_looked_for_where_a_message_has_keys_and_not_in_what_it_says() -> None:
    said = {"type": "text", "text": "vtprune"}
    call = {"type": "tool_use", "name": "f", "input": {"vtprune": 1}}
    message = {"role": "user", "name": "vtprune", "content": [said, call]}
    check_beside(None, [message, {"role": "user", "content": "vtprune"}, "vtprune"])
    source = {"type": "image", "source": {"type": "url", "vtprune_rate": 0.5}}
    for other in ({**message, "vtprune": {}}, {"content": [{**said, "VTprune": 1}]}):
        with pytest.raises(VLLMValidationError, match="(?i)vtprune is given inside a message"):
            check_beside(None, [message, other])
    with pytest.raises(VLLMValidationError, match="vtprune_rate is given inside a message"):
        meant({"messages": [message, {"content": [source]}]})


def test_what_openais_client_unfolds_is_refused_as_it_is() -> None:
    with pytest.raises(VLLMValidationError, match=r"extra_body\.vtprune is given"):
        check_keys({"extra_body": {"vtprune": {"rate": 0.5}}})
    check_keys({"extra_body": {"top_k": 1}})


def test_what_is_for_one_modality_is_no_place_for_ours() -> None:
    with pytest.raises(VLLMValidationError, match="settings are given in images_kwargs; allowed"):
        check_keys({"images_kwargs": {"vtprune": {"rate": 0.5}}}, "in mm_processor_kwargs")
    check_keys({"images_kwargs": {"max_pixels": 100}}, "in mm_processor_kwargs")


def test_what_goes_along_is_ours_and_what_was_meant_for_it() -> None:
    body: dict[str, Any] = {"model": "m", "vtprune": {"rate": 0}, "vtprun": 1, "max_tokens": 4}
    assert meant(body) == {"vtprune": {"rate": 0}, "vtprun": 1}


def test_what_is_asked_of_an_answer_is_refused_where_its_usage_has_no_place_for_it() -> None:
    with pytest.raises(VLLMValidationError, match="confidence is asked for; allowed: in chat comp"):
        meant({"vtprune": {"rate": 0.5, "confidence": True}})


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            {"vtprune": {}},
            "settings are given to /v1/completions, .* allowed: /v1/chat/completions",
        ),
        ({"vtprun": {}}, "vtprun is given but there is no such key; allowed: vtprune"),
    ],
    ids=str,
)
def test_settings_are_refused_where_there_is_no_image(body: dict[str, Any], told: str) -> None:
    with pytest.raises(VLLMValidationError, match=told):
        refuse_without_images(body)


def test_a_body_without_settings_needs_no_image() -> None:
    refuse_without_images({"vtprune": None, "user": "somebody"})
