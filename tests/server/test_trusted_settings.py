"""Settings in a request's processor arguments, on a server that trusts them: they are read as those
of a body are, whatever else the request says."""

from __future__ import annotations

from typing import Any

import pytest
from media import PHOTOS, data_url, photo_question, text_part
from vllm_server import Server

pytestmark = pytest.mark.server


def _image(index: int, **fields: Any) -> dict[str, Any]:
    url = data_url(PHOTOS[index].read_bytes())
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def _counts(answer: dict[str, Any]) -> Any:
    return answer["usage"].get("visual_tokens")


def test_trusted_settings_hold_beside_the_detail_of_animage(pruned: Server) -> None:
    content = [_image(0, detail="low"), _image(1), text_part("Compare them.")]
    trusted = {"mm_processor_kwargs": {"vtprune": {"rate": 0.5}}}
    assert _counts(pruned.ask(content, **trusted)) == {"original": 2 * 576, "kept": 29 + 288}
    levels = {"mm_processor_kwargs": {"vtprune": {"rate": 0.5, "detail": ["auto", "high"]}}}
    plain = [_image(0), _image(1), text_part("Compare them.")]
    assert _counts(pruned.ask(plain, **levels)) == {"original": 2 * 576, "kept": 288 + 288}
    twice = pruned.post(content, **levels)
    assert (twice.status_code, "detail is given twice" in twice.text) == (400, True)


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"vtprune": {"rate": 90}}, "rate is 90; it should be less than 1"),
        (
            {"vtprun": {"rate": 0.5}},
            "there is no such key; allowed: vtprune in mm_processor_kwargs",
        ),
        ({"vtprune_plans": {}}, "there is no such key; allowed: vtprune in mm_processor_kwargs"),
    ],
    ids=str,
)
def test_trusted_settings_are_refused_whatever_an_image_says(
    kwargs: Any, sentence: str, pruned: Server
) -> None:
    response = pruned.post([_image(0, detail="low")], mm_processor_kwargs=kwargs)
    assert response.status_code == 400
    assert sentence in response.json()["error"]["message"]


def test_what_is_asked_of_an_answer_may_be_trusted_too(pruned: Server) -> None:
    kwargs = {"vtprune": {"confidence": True, "rate": 0.5}}
    usage = pruned.ask(photo_question(0), mm_processor_kwargs=kwargs)["usage"]
    assert usage["visual_tokens"]["kept"] == 288 and usage["confidence"]["margin"] >= 0
