"""A server whose prompts may have no image and no video, for which vLLM loads no vision tower: it
starts and answers text, and refuses images as stock vLLM does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from media import photo_question
from vllm_server import Server

pytestmark = pytest.mark.server


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        ("demo", ["--limit-mm-per-prompt", '{"image": 0}']),
        ("demo-qwen3", ["--language-model-only"]),
    ],
    ids=["llava", "qwen3"],
)
def test_it_answers_text(model: str, flags: list[str], start: Callable[..., Server]) -> None:
    server = start(f"text-{model}", "--plugin", "vtprune", *flags, model=model)
    answer = server.ask("Say something about nothing.", vtprune={"rate": 0.5})
    assert answer["usage"]["completion_tokens"] == 12
    assert "visual_tokens" not in answer["usage"]
    response = server.post(photo_question(0))
    assert (response.status_code, "At most 0 image" in response.text) == (400, True)
    assert server.client.get("/vtprune/config").status_code == 404
