"""On a vLLM that is not known, one picture goes through processor and model before anybody's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from installed_package import declare_package
from media import photo_question
from python_path import path_with
from vllm_server import Server
from vtprune_server.canary import fault

KEEP = 28
SELECTION = {
    "settings": {"method": "vispruner", "tokens": KEEP},
    "original": 256,
    "kept": list(range(0, 2 * KEEP, 2)),
    "rows": KEEP,
}


def engine_input(places: int, run: list[int]) -> dict[str, Any]:
    place = SimpleNamespace(offset=2, length=len(run), get_num_embeds=lambda: places)
    return {"mm_placeholders": {"image": [place]}, "prompt_token_ids": [1, 2, *run, 3, 4]}


def test_a_picture_that_comes_through_is_no_fault() -> None:
    assert fault(engine_input(KEEP, [9] * KEEP), SELECTION) is None


def test_row_breaks_take_places_beside_the_kept_tokens() -> None:
    made, selected = engine_input(KEEP + 3, [9] * (KEEP + 3)), {**SELECTION, "rows": KEEP + 3}
    assert fault(made, selected, beside=3) is None
    assert fault(made, selected, beside=2) is not None
    assert fault(made, {**selected, "rows": KEEP}, beside=3) is not None


@pytest.mark.parametrize(
    ("places", "run", "changed", "said"),
    [
        (KEEP + 1, [9] * (KEEP + 1), {}, "29 places for 28"),
        (KEEP, [9] * (KEEP - 1) + [8], {}, "not adjacent"),
        (KEEP, [9] * KEEP, {"rows": KEEP - 1}, "27 rows for 28"),
        (KEEP, [9] * KEEP, {"kept": list(range(KEEP - 1))}, "28 different tokens"),
        (KEEP, [9] * KEEP, {"kept": [0, *range(KEEP - 1)]}, "28 different tokens"),
        (KEEP, [9] * KEEP, {"kept": list(range(KEEP))[::-1]}, "28 different tokens"),
        (KEEP, [9] * KEEP, {"kept": list(range(230, 230 + KEEP))}, "28 different tokens"),
    ],
)
def test_each_fault_is_named(
    places: int, run: list[int], changed: dict[str, Any], said: str
) -> None:
    wrong = fault(engine_input(places, run), {**copy.deepcopy(SELECTION), **changed})
    assert wrong is not None and said in wrong


SHORT = """
from vllm_pruner.methods.base import Method
from vllm_pruner.methods.uniform import select

SHORT = Method("short", lambda tokens, keep, options: select(tokens, keep - 1, options))
"""


@pytest.mark.server
def test_a_server_starts_behind_the_canary_and_answers(start: Callable[..., Server]) -> None:
    server = start("canary", "--plugin", "vtprune", VLLM_VTPRUNE_CANARY="1")
    answer = server.ask(photo_question(0))
    assert answer["usage"]["visual_tokens"]["kept"] < answer["usage"]["visual_tokens"]["original"]


@pytest.mark.server
def test_a_server_whose_model_returns_too_few_rows_does_not_start(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    (tmp_path / "short_method.py").write_text(SHORT)
    declare_package(tmp_path, "short-method", "vtprune.methods", {"short": "short_method:SHORT"})
    said = r"method 'short' of package short-method returned int64 \[1, 63\] .* int64 \[1, 64\]"
    with pytest.raises(RuntimeError, match=said):
        start(
            "short",
            *["--plugin", "vtprune", "--prune-method", "short"],
            PYTHONPATH=path_with(tmp_path, Path(__file__).parent),
        )
