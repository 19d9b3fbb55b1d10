"""What the host does for the pictures of a batch: no more launches than these, and no wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from launched import Launched, stages_of
from pruned_model import picture_batch, pruned_model

from vllm_pruner import methods

pytestmark = pytest.mark.slow

SIZES = [
    *((336, 448), (448, 336), (300, 500), (500, 300), (224, 448), (448, 224)),
    *((600, 300), (300, 600)),
]
"""Eight grids of Qwen-VL, six layouts of crops."""

GRAPHED = {"tower", "tower's edge", "probe", "selection"}
"""What can be CUDA graphs; its launches are not counted here."""

ON_HOST = {"plans", "images"}
"""What reads tensors that vLLM keeps on the CPU: plans and sizes."""

MOST = {
    "demo": (10, 10),
    "demo-next": (40, 111),
    "demo-idefics3": (16, 23),
    "demo-qwen2.5": (6, 29),
    "demo-qwen3": (7, 30),
}
"""Most launches of one new picture, or of any number of one size, and of eight of these sizes."""


@pytest.fixture(scope="module", params=MOST)
def made(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any, Any]]:
    flags = {"dtype": "float32", "max_num_batched_tokens": 9216}
    with pruned_model(request.param, {}, **flags) as (config, model):
        yield request.param, config, model


def _launched(made: tuple[str, Any, Any], *batches: dict[str, Any]) -> Launched:
    """What the last of these batches launches."""
    _, _, model = made
    for fields in batches:
        with torch.inference_mode(), Launched(stages_of(model)) as launched:
            model.embed_multimodal(**fields)
    return launched


def _outside(launched: Launched, kind: str) -> int:
    stages = {stage for stage, _, _ in launched.counts} - GRAPHED
    return launched.of(kind, *stages)


def _check_reads(launched: Launched) -> None:
    waits = {stage: name for stage, kind, name in launched.counts if kind == "read"}
    waits = {stage: name for stage, name in waits.items() if stage not in ON_HOST | {"tower"}}
    assert not waits, "the host waits for the device"


@pytest.mark.parametrize("number", [1, 8])
@pytest.mark.parametrize("alike", [True, False], ids=["of one size", "of all sizes"])
def test_what_new_and_known_pictures_launch(
    made: tuple[str, Any, Any], number: int, alike: bool
) -> None:
    """Sizes are seen for the second time."""
    name, config, _ = made
    most = MOST[name][0 if alike or number == 1 else 1]
    sizes = SIZES[:1] * number if alike else SIZES[:number]
    before, fields = (picture_batch(config, sizes, (at, number, alike), {}) for at in range(2))
    new, known = _launched(made, before, fields), _launched(made, fields)
    for launched, sends in ((new, 1), (known, 0)):
        assert _outside(launched, "launch") <= most, launched.counts
        assert _outside(launched, "send") <= sends + (not alike), "a copy from the host"
        _check_reads(launched)
    assert not any(stage == "tower" for stage, _, _ in known.counts)


def test_no_method_waits_for_the_device(made: tuple[str, Any, Any]) -> None:
    _, config, model = made
    sizes = [(112, 112), (112, 112), (150, 90)]
    _launched(made, picture_batch(config, sizes, (2,), {}))  # what a size needs is on the device
    for name in methods.built_in():
        if model.family.serves(model.config, methods.get(name)):
            settings = {"method": name, "floor": "off"}  # nothing of noise is plain
            fields = picture_batch(config, sizes, (3,), settings)
            _check_reads(_launched(made, fields))


def test_a_wait_is_seen_and_a_view_is_none() -> None:
    """Of the ways to read a tensor: none is written in the code above, so none would be missed."""
    numbers = torch.arange(6.0)
    waits = [
        lambda: numbers.sum().item(),
        lambda: bool(numbers.any()),
        lambda: int(numbers[2]),
        lambda: numbers.tolist(),
        lambda: numbers.numpy(),
        lambda: numbers[numbers > 2],
        lambda: torch.where(numbers > 2),
        lambda: (numbers > 2).nonzero(),
        lambda: numbers.unique(),
        lambda: numbers.cpu(),
        lambda: torch.equal(numbers, numbers),
        lambda: numbers.repeat_interleave(numbers.long()),
    ]
    for wait in waits:
        with torch.inference_mode(), Launched({}) as launched:
            wait()
        assert launched.of("read") == 1
    with torch.inference_mode(), Launched({}) as launched:
        torch.tensor([1, 2]).view(2, 1).expand(2, 3).flip(0)
    assert (launched.of("send"), launched.of("launch"), launched.of("read")) == (1, 1, 0)
    with torch.inference_mode(), Launched({}) as launched:
        torch.cat([numbers[2:], numbers.flip(0).mul_(2)]).reshape(2, 5)
    assert (launched.of("send"), launched.of("launch"), launched.of("read")) == (0, 3, 0)
