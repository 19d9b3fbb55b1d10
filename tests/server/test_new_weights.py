"""Where vLLM drops what it computed with weights that are no more, vtprune drops it too."""

from __future__ import annotations

import pytest
from media import photo_question
from vllm_server import Server

pytestmark = pytest.mark.server

MISSES = "vtprune_feature_cache_misses_total"


def test_a_known_picture_is_encoded_again(pruned: Server) -> None:
    """vLLM resets its encoder cache when it pauses or sleeps, too."""
    question = photo_question(3, "What is it?")
    pruned.ask(question)
    before = pruned.metric(MISSES)
    expected = pruned.text(question, vtprune={"tokens": 40})
    assert pruned.metric(MISSES) == before, "a known picture is not encoded"
    assert pruned.client.post("/reset_encoder_cache").status_code == 200
    assert pruned.metric("vtprune_feature_cache_bytes") == 0
    assert pruned.text(question, vtprune={"tokens": 41})
    assert pruned.metric(MISSES) == before + 1
    assert pruned.text(question, vtprune={"tokens": 40}) == expected
