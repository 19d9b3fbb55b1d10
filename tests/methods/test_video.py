"""EVS and VidCom2 on the tokens of videos, against their formulas."""

from __future__ import annotations

import pytest
import torch
from drawn_tokens import KINDS, cosines, ranked, rows

import vllm_pruner
from vllm_pruner import methods

SHAPES = [(1, 1), (1, 7), (2, 1), (4, 16), (8, 72)]


def evs(video: torch.Tensor, keep: int) -> list[int]:
    frames, places, _ = video.shape
    changed = [255.0] * places
    for t in range(1, frames):
        cosine = cosines(video[t], video[t - 1]).diagonal()
        changed += [round(1 - float(c), 12) for c in cosine]
    return sorted(ranked(torch.tensor(changed).double())[:keep])


def vidcom2(video: torch.Tensor, keep: int) -> list[int]:
    frames, places, width = video.shape
    variance = video.double().flatten(0, 1).var(dim=0, unbiased=False).tolist()
    steady = sorted(sorted(range(width), key=lambda c: (variance[c], c))[: max(1, width // 2)])
    x = video.double()[:, :, steady]
    x = x / x.norm(dim=2, keepdim=True).clamp_min(1e-30)

    def g(centre: torch.Tensor) -> torch.Tensor:
        square = ((x - centre) ** 2).sum(dim=2)
        return sum(torch.exp(-square / (2 * alpha)) for alpha in (1 / 8, 1 / 4, 1 / 2, 1, 2))

    v = g(x.mean(dim=(0, 1)))
    score = (v + g(x.mean(dim=1, keepdim=True))).round(decimals=12).flatten().tolist()
    w = (-v.mean(dim=1) / 0.01).softmax(dim=0)
    chosen: set[int] = set()
    for t in range(frames):
        share = min(1.0, keep / (frames * places) * float(1 + w[t] - w.mean()))
        own = sorted(range(t * places, (t + 1) * places), key=lambda j: (score[j], j))
        chosen |= set(own[: max(1, round(share * places))])
    while len(chosen) > keep:
        chosen.remove(max(chosen, key=lambda j: (score[j], j)))
    while len(chosen) < keep:
        chosen.add(min(set(range(len(score))) - chosen, key=lambda j: (score[j], j)))
    return sorted(chosen)


@pytest.mark.parametrize("literal", [evs, vidcom2], ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames, places", SHAPES)
def test_it_is_the_formula(literal, kind, frames, places) -> None:
    videos = rows(kind, 3, frames, places, 64)
    total = frames * places
    for keep in sorted({0, 1, total // 9, total // 2, total - 1, total}):
        kept = vllm_pruner.select_video(literal.__name__, keep=keep, features=videos)
        assert kept.tolist() == [literal(video, keep) for video in videos], keep
        alone = vllm_pruner.select_video(literal.__name__, keep=keep, features=videos[1])
        assert torch.equal(alone, kept[1])


def test_evs_keeps_the_first_frame_and_what_changes_afterwards() -> None:
    video = rows("random", 1, 16, 64).repeat(4, 1, 1)
    video[2, 5] = -video[2, 5]
    kept = vllm_pruner.select_video("evs", keep=18, features=video)
    assert kept.tolist() == [*range(16), 2 * 16 + 5, 3 * 16 + 5]


def test_vidcom2_gives_more_to_the_frame_that_differs() -> None:
    generator = torch.Generator().manual_seed(0)
    video = torch.ones(6, 16, 64) + 0.1 * torch.randn(6, 16, 64, generator=generator)
    video[4] += torch.randn(16, 64, generator=generator)
    kept = vllm_pruner.select_video("vidcom2", keep=24, features=video)
    of_frame = torch.bincount(kept // 16, minlength=6).tolist()
    assert of_frame[4] == max(of_frame) > 24 / 6
    assert min(of_frame) >= 1


def test_a_method_for_videos_is_none_for_images_and_the_other_way_round() -> None:
    assert set(methods.names()) & set(methods.names(methods.VIDEO_GROUP)) == set()
    with pytest.raises(ValueError, match=r"^method is 'evs'; allowed: adafv, "):
        vllm_pruner.select("evs", keep=1, features=torch.ones(4, 8))
    with pytest.raises(ValueError, match=r"^method is 'scope'; allowed: evs, vidcom2$"):
        vllm_pruner.select_video("scope", keep=1, features=torch.ones(2, 4, 8))
    with pytest.raises(ValueError, match=r"^features has shape \(4, 8\); allowed: \[videos, "):
        vllm_pruner.select_video("evs", keep=1, features=torch.ones(4, 8))
