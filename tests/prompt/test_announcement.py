"""The line of the log that says what a server does to every image."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from vllm_pruner.prompt.announcement import announce
from vllm_pruner.settings.server import ServerConfig

MODEL: Any = SimpleNamespace(architecture="Llava", model="m", multimodal_config=None)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"method": "scope", "rate": 0.75},
            "scope keeps 144 of 576 visual tokens per image (rate 0.7500), more of one with print",
        ),
        (
            {"method": "pixels", "rate": 0.75},
            "pixels keeps 144 of 576 visual tokens per image (rate 0.7500) if all of it is plain, "
            "else more",
        ),
        (
            {"method": "scope", "tokens": 64, "floor": "off"},
            "scope keeps 64 of 576 visual tokens per image (rate 0.8889)",
        ),
        (
            {"method": "scope", "request_tokens": 3000},
            "scope keeps 3000 visual tokens of a request's images",
        ),
    ],
    ids=["text", "content", "off", "one-budget"],
)
def test_what_is_kept_is_said_with_what_keeps_more(
    settings: dict[str, Any],
    said: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    handler = logging.Handler()  # of this test alone; pytest's own hears what others let through
    monkeypatch.setattr(handler, "emit", lambda record: lines.append(record.getMessage()))
    logger = logging.getLogger("vllm.vtprune")
    logger.addHandler(handler)
    with caplog.at_level(logging.INFO, logger.name):
        announce(ServerConfig.parse(settings), MODEL, 576)
    logger.removeHandler(handler)
    assert lines == [f"vtprune: {said}, for Llava, m"]
