"""Tables, intervals, plots and the tuner, on records with known figures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vtprune_evaluate.contender import DEFAULT_METHOD, contenders
from vtprune_evaluate.datasets import DATASETS
from vtprune_evaluate.plot import draw_plot
from vtprune_evaluate.report import interval, markdown, paired_difference
from vtprune_evaluate.run import read_records
from vtprune_evaluate.tune import LADDER, tune

from vllm_pruner.settings import defaults

HALF = Fraction(1, 2)


def made(accuracy: float, method: str = "unpruned", keep: Fraction = Fraction(1), count: int = 500):
    """Records of `count` questions, two an image, right with probability `accuracy`."""
    lots = np.random.default_rng(3).random(count)
    return [
        {
            "method": method,
            "keep": str(keep),
            "image": str(i // 2),
            "group": "faint" if i % 2 else "salient",
            "score": float(lot < accuracy),
            "kept": int(256 * keep),
        }
        for i, lot in enumerate(lots)
    ]


def test_the_method_that_is_asked_by_default_is_the_servers() -> None:
    """The evaluation stands alone and cannot import it."""
    assert DEFAULT_METHOD == defaults.DEFAULT_METHOD


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        lots = np.random.default_rng(seed).random(200)
        records = [{"image": str(i), "score": float(lot < 0.7)} for i, lot in enumerate(lots)]
        _, low, high = interval(records)
        covered += low <= 70 <= high
    assert 180 <= covered <= 199


def test_questions_of_one_image_are_drawn_together() -> None:
    """Ten copies of each question tell no more than one."""
    lots = np.random.default_rng(0).random(100) < 0.5
    once = [{"image": str(i), "score": float(lot)} for i, lot in enumerate(lots)]
    _, low, high = interval(once)
    _, low_of_ten, high_of_ten = interval(once * 10)
    assert (low, high) == pytest.approx((low_of_ten, high_of_ten))


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    better, worse = made(0.9), made(0.85)
    difference, low, high = paired_difference(worse, better)
    assert difference == pytest.approx(interval(worse)[0] - interval(better)[0])
    assert high - low < interval(better)[2] - interval(better)[1]
    assert paired_difference(better, better) == (0, 0, 0)


def test_the_table_has_a_row_a_contender_and_a_column_a_kind() -> None:
    records = made(0.9) + made(0.5, "vispruner", HALF)
    lines = markdown(DATASETS["synthetic"], records).splitlines()
    assert lines[0] == "| method | kept | tokens | questions | all (95 %) | faint | salient |"
    assert lines[3].startswith("| vispruner | 1/2 | 128 | 500 | ")
    assert len(lines) == 4


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    records = made(0.9) + made(0.8, "vispruner", HALF) + made(0.5, "vispruner", HALF / 8)
    draw_plot(records, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("cliff", [1, 4, 9, 36, 40])
def test_the_tuner_finds_the_last_share_before_the_cliff(cliff: int) -> None:
    """Accuracy holds down to 1/cliff and falls below it."""
    asked: list[Fraction] = []

    def measure(keep: Fraction) -> Any:
        asked.append(keep)
        return made(0.9 if keep >= Fraction(1, cliff) else 0.7, "m", keep)

    choice = tune(measure, made(0.9), bound=1.0)
    held = [share for share in LADDER if share >= Fraction(1, cliff)]
    assert choice.keep == (held[-1] if held else 1)
    assert choice.rate == pytest.approx(1 - float(choice.keep))
    assert len(asked) <= 4, "by bisection"


def test_a_sure_choice_wants_the_interval_within_the_bound() -> None:
    """Two points lost on 500 questions: within 3 on the face of it, not with 95 % confidence."""

    def measure(keep: Fraction) -> Any:
        return made(0.88, "m", keep)

    assert tune(measure, made(0.9), bound=3.0).keep == LADDER[-1]
    assert tune(measure, made(0.9), bound=3.0, sure=True).keep == 1


def test_contenders_say_what_a_request_carries() -> None:
    unpruned, half = contenders(['vispruner{"important_ratio": 0.75}'], [HALF])
    assert unpruned.body() == {"vtprune": {"rate": 0.0}}
    assert half.body() == {
        "vtprune": {"method": "vispruner", "rate": 0.5, "options": {"important_ratio": 0.75}}
    }
    assert half.label == 'vispruner{"important_ratio": 0.75}@1/2'
    (plain,) = contenders(["as-is"], [HALF])
    assert plain.body() == {}


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text('{"id": 1}\n{"id": 2}\n{"id": ')
    assert [record["id"] for record in read_records(file)] == [1, 2]
    assert file.read_text() == '{"id": 1}\n{"id": 2}\n'
