"""A video that a server cannot afford is refused by its file's header; others are pruned."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from media import clip, photo_question, text_part, video_part
from vllm_server import Server

pytestmark = pytest.mark.server

MOST = 2_000_000
"""Pixels of all frames; a clip of 8 has a hundred thousand."""

QUESTION = text_part("What happens?")
WITHIN = [video_part(clip(8)), QUESTION]


@pytest.fixture(scope="module")
def limited(start_shared: Callable[..., Server]) -> Server:
    limits = json.dumps({"max_video_pixels": MOST, "max_side_ratio": 4, "max_pixels": 9_000_000})
    flags = ["--plugin", "vtprune", "--prune-rate", "0.5", "--prune-limits", limits]
    return start_shared("limited-videos", *flags, model="demo-qwen2.5")


def _peak(server: Server) -> int:
    """Bytes that the API server has held at most so far."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def _refused(server: Server, content: Any, **body: Any) -> str:
    answer = server.post(content, **body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == "vtprune" and error["code"] == 400
    return str(error["message"]).removesuffix(" (parameter=vtprune)")


def test_a_video_within_the_limits_is_pruned_and_counted(limited: Server) -> None:
    before = sum(limited.metrics("vtprune_videos_total").values())
    usage = limited.ask(WITHIN)["usage"]
    whole = limited.ask(WITHIN, vtprune={"rate": 0})["usage"]
    counts = usage["visual_tokens"]
    assert counts["kept"] == round(counts["original"] / 2)
    assert counts["video"] == {name: counts[name] for name in ("original", "kept")}
    assert whole["prompt_tokens"] - usage["prompt_tokens"] == counts["original"] - counts["kept"]
    assert sum(limited.metrics("vtprune_videos_total").values()) == before + 2


@pytest.mark.parametrize(
    "settings", [{}, {"rate": 0.0}, {"video_rate": 0.9}], ids=["default", "off", "own"]
)
def test_a_video_above_the_limit_is_refused_before_it_is_decoded(
    limited: Server, settings: dict[str, Any]
) -> None:
    """Decoded, its frames have 276 MB."""
    bomb = [video_part(clip(16, 2400)), QUESTION]
    limited.ask(WITHIN)
    before = _peak(limited)
    said = _refused(limited, bomb, vtprune=settings)
    assert said == (
        f"vtprune: video is 16 frames of 2400 x 2400 pixels; allowed here: max_video_pixels {MOST}"
    )
    assert _peak(limited) - before < 150 << 20
    assert limited.text(WITHIN)


def test_a_frame_is_held_against_the_limits_of_an_image(limited: Server) -> None:
    said = _refused(limited, [video_part(clip(4, 3100)), QUESTION])
    assert said.endswith(
        "video is 4 frames of 3100 x 3100 pixels; allowed here: max_pixels 9000000"
    )


def test_requests_beside_a_refused_one_are_answered(limited: Server) -> None:
    above = [video_part(clip(16, 448)), QUESTION]
    contents = [above, WITHIN, photo_question(0), above, WITHIN, "No video at all."]
    with ThreadPoolExecutor(len(contents)) as pool:
        answers = list(pool.map(limited.post, contents))
    codes = [answer.status_code for answer in answers]
    assert codes == [400 if content is above else 200 for content in contents]
    refusals = limited.metric("vtprune_refusals_total")
    _refused(limited, above)
    assert limited.metric("vtprune_refusals_total") == refusals + 1
