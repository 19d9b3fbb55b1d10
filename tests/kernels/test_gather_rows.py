"""What `gather_rows` alone promises: packed images, absent rows, given buffers."""

from __future__ import annotations

import pytest
import torch
from padded_batch import KEEP, LENGTHS, WAYS, WIDTH, drawn, padded
from vtprune_kernels import gather_rows
from vtprune_kernels.gather_rows import SPECS

(SPEC,) = SPECS


def _packed() -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]:
    starts, counts = torch.tensor([0, 9, 9, 30]), torch.tensor([0, 4, 4, 9], dtype=torch.int32)
    rows = [torch.randn(30, 6), torch.arange(60).view(30, 2), torch.rand(30) > 0.5]
    kept = torch.tensor([[0, 2, 3, 8, -1], [-1] * 5, [1, 4, 5, 19, 20]])
    return rows, kept, starts, counts


@pytest.mark.parametrize("kernel", [False, True], ids=["reference", "kernel"])
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_rows_of_packed_images_go_packed_to_the_projector(kernel: bool) -> None:
    rows, kept, starts, places = _packed()
    out = [tensor.new_empty(9, *tensor.shape[1:]) for tensor in rows]
    gather = SPEC.launcher if kernel else gather_rows
    for buffer, tensor in zip(gather(rows, kept, out, starts, places), rows, strict=True):
        assert torch.equal(buffer, tensor[[0, 2, 3, 8, 10, 13, 14, 28, 29]])


@pytest.mark.parametrize("kernel", [False, True], ids=["reference", "kernel"])
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_absent_rows_are_zeros(kernel: bool) -> None:
    rows, kept, starts, _ = _packed()
    out = [tensor.new_empty(*kept.shape, *tensor.shape[1:]) for tensor in rows]
    gather = SPEC.launcher if kernel else gather_rows
    for buffer, tensor in zip(gather(rows, kept, out, starts), rows, strict=True):
        assert torch.equal(buffer[2], tensor[[10, 13, 14, 28, 29]])
        assert not buffer[1].any() and not buffer[0, 4].any()


def test_packed_buffers_have_to_be_given() -> None:
    with pytest.raises(ValueError, match="out"):
        gather_rows(_packed()[0], _packed()[1], cu_kept=_packed()[3])


@pytest.mark.parametrize(("way", "garbage"), WAYS)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_a_padded_batch_has_the_rows_of_each_image(way: str, garbage: float) -> None:
    run, images = getattr(SPEC, way), drawn()
    kept = [list(range(0, n, 3))[:KEEP] for n in LENGTHS]
    table = torch.tensor([[*some, *[-1] * (KEEP - len(some))] for some in kept])
    out = [torch.empty(len(LENGTHS), KEEP, WIDTH)]
    (together,) = run([padded(images, garbage)], table, out)
    for found, rows, some in zip(together, images, kept, strict=True):
        assert torch.equal(found[: len(some)], rows[some])
        assert not found[len(some) :].any()
