"""The four objectives of `greedy_select` in plain torch, each beside its formula.

An objective starts for S = `gram [segments, N, N]` and w = `weight [segments, N]` with no row
taken. `score` returns `[segments, N]`, what is compared; `take` puts one row of each segment, p,
into the set.

Near ties are decided by the last bit, so the arithmetic is fixed: sums over what is covered are of
whole numbers and exact in any order, and the point process is in float64 and adds in one order.

Sources: DivPrune (arXiv 2503.02175), SCOPE (2510.24214), CDPruner (2506.10967), all from the
formulas in `methods.md` section 3.
"""

from __future__ import annotations

from typing import Protocol

import torch

__all__ = ["OBJECTIVES", "Objective"]

_ONE = 2.0**22
_ALL_DEMAND = 2.0**30
_DUPLICATE = 1e-6
"""A Gram of float32 entries is positive semidefinite up to some 1e-7."""


class Objective(Protocol):
    """What a greedy selection maximises, and what it has taken so far."""

    def __init__(self, gram: torch.Tensor, weight: torch.Tensor) -> None: ...
    def score(self) -> torch.Tensor: ...
    def take(self, best: torch.Tensor) -> None: ...


class _MaxMin:
    """DivPrune: the distance to the nearest row of the set.

        start    score  min_{j != i} (1 - S[i, j])
        first p  near[i] = 1 - S[i, p]
        next p   near[i] = min(near[i], 1 - S[i, p])
                 score  near[i]

    Deviation: the paper's first step takes the second smallest distance of a column, i included.
    """

    def __init__(self, gram: torch.Tensor, weight: torch.Tensor) -> None:
        self._distance = 1 - gram
        self._near: torch.Tensor | None = None

    def score(self) -> torch.Tensor:
        if self._near is not None:
            return self._near
        itself = torch.eye(self._distance.shape[1], dtype=torch.bool, device=self._distance.device)
        return self._distance.masked_fill(itself, float("inf")).amin(dim=2)

    def take(self, best: torch.Tensor) -> None:
        distance = _row(self._distance, best)
        self._near = distance if self._near is None else torch.minimum(self._near, distance)


class _Coverage:
    """SCOPE, facility location times saliency: how much better everything is represented.

        start    cover[j] = 0
        score    w[i] sum_j max(0, S[j, i] - cover[j])
        next p   cover[j] = max(cover[j], S[j, p])

    S is clipped to 1 and counted in whole multiples of 2**-22, so sums are exact in any order: a
    step subtracts what p takes away, and reads only the columns whose cover p raises. Which those
    are it asks the host.
    """

    def __init__(self, gram: torch.Tensor, weight: torch.Tensor) -> None:
        self._weight = weight
        self._similarity = (gram.clamp(-1.0, 1.0) * _ONE).round()
        self._cover = self._similarity.new_zeros(gram.shape[:2])
        self._gains = self._sum(self._similarity.clamp_min(0), weight)

    def score(self) -> torch.Tensor:
        return self._gains.float() * self._weight

    def take(self, best: torch.Tensor) -> None:
        for segment, p in enumerate(best):
            similarity, cover = self._similarity[segment], self._cover[segment]
            rise = (similarity[p] - cover).clamp_min(0)
            j = rise.nonzero().squeeze(1)
            over = similarity[j] - cover[j, None]  # S is symmetric, and its rows are contiguous
            lost = torch.minimum(over, rise[j, None]).clamp_min_(0)
            self._gains[segment] -= self._sum(lost, self._weight[segment, j])
            self._cover[segment] += rise

    def _sum(self, gained: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return `[..., N]` float64: of `gained [..., J, N]`, what row i gains of all columns j."""
        return gained.sum(dim=-2, dtype=torch.float64)


class _Demand(_Coverage):
    """Facility location whose weights say what should be covered, not who may cover it.

        score    sum_j w[j] max(0, S[j, i] - cover[j]), as a float32

    w is counted in whole multiples of 2**-30, exact while a segment's w add up to 1 at most.
    """

    def score(self) -> torch.Tensor:
        return self._gains.float()

    def _sum(self, gained: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        demand = (weight.double() * _ALL_DEMAND).round().unsqueeze(-2)
        return (demand @ gained.double()).squeeze(-2)


class _Determinant:
    """CDPruner, a determinantal point process: the determinant of L = diag(w) S diag(w) over the
    set, by incremental Cholesky.

        start    rest[i] = L[i, i]
        score    rest[i]
        next p   e[i] = (L[p, i] - sum_c c[p] c[i]) / sqrt(rest[p])
                 e joins the c, rest[i] = rest[i] - e[i]**2

    What remains of a duplicate, anything below 1e-6, is 0.
    """

    def __init__(self, gram: torch.Tensor, weight: torch.Tensor) -> None:
        w = weight.double()
        self._kernel = w[:, :, None] * gram.double() * w[:, None, :]
        self._rest = self._kernel.diagonal(dim1=1, dim2=2).clone()
        self._cholesky: list[torch.Tensor] = []

    def score(self) -> torch.Tensor:
        return self._rest.where(self._rest > _DUPLICATE, 0.0)

    def take(self, best: torch.Tensor) -> None:
        p = best.unsqueeze(1)
        pivot = self.score().gather(1, p)
        seen = torch.zeros_like(self._rest)
        for c in self._cholesky:  # in this order in the kernel too
            seen = seen + c.gather(1, p) * c
        e = (_row(self._kernel, best) - seen) / pivot.sqrt()
        e = e.where(pivot > 0, 0.0)
        self._cholesky.append(e)
        self._rest = self._rest - e * e


def _row(matrix: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    """Return row `best[s]` of each segment's matrix: `[segments, N]`."""
    return matrix[torch.arange(len(best), device=best.device), best]


OBJECTIVES: dict[str, type[Objective]] = {
    "max-min": _MaxMin,
    "coverage": _Coverage,
    "dpp": _Determinant,
    "demand": _Demand,
}
