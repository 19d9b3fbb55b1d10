"""An image that a server cannot afford is refused by what its file's header says."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from media import encode, image_part, photo_question, text_part
from PIL import Image
from vllm_server import Server

pytestmark = pytest.mark.server

QUESTION = text_part("What is in this picture?")


def bomb(kind: str) -> bytes:
    """An image file of some kilobytes that is not one in memory."""
    mode, width, height = {
        "line": ("L", 1, 60_000),
        "large": ("1", 13_000, 13_000),
        "larger-than-pillow-opens": ("1", 20_000, 20_000),
    }[kind]
    return encode(Image.new(mode, (width, height)))


@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        ("line", "image is 1 x 60000 pixels; allowed here: max_side_ratio 500"),
        ("large", "image is 13000 x 13000 pixels; allowed here: max_pixels 120000000"),
        ("larger-than-pillow-opens", "more than 178956970 pixels; allowed here: max_pixels 12000"),
    ],
)
def test_an_image_larger_than_its_file_is_refused_before_it_is_decoded(
    pruned: Server, kind: str, limit: str
) -> None:
    part = image_part(bomb(kind), "image/png")
    messages = [{"role": "user", "content": [part, QUESTION]}]
    before = _peak(pruned)
    responses = [
        pruned.post([part, QUESTION]),
        pruned.post([part, QUESTION], vtprune={"rate": 0.0}),
        pruned.client.post("/vtprune/explain", json={"messages": messages}),
        pruned.client.post("/vtprune/compare", json={"messages": messages, "settings": [{}]}),
    ]
    for response in responses:
        assert response.status_code == 400, response.text
        assert limit in response.json()["error"]["message"]
    # One pixel of the second is a byte at least, where it is decoded.
    assert _peak(pruned) - before < 100 << 20
    assert pruned.text(photo_question(0))


def test_a_size_is_estimated_if_an_image_of_it_is_answered(pruned: Server) -> None:
    def estimate(width: int, height: int) -> httpx.Response:
        body = {"images": [{"width": width, "height": height}]}
        return pruned.client.post("/vtprune/estimate", json=body)

    assert estimate(12_032, 9_024).status_code == 200
    refused = estimate(1, 60_000)
    assert refused.status_code == 400
    assert "max_side_ratio 500" in refused.json()["error"]["message"]


def _peak(pruned: Server) -> int:
    """Bytes that the API server has held at most so far."""
    status = Path(f"/proc/{pruned.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10
