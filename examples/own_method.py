"""A method of your own in one file: keep the tokens nearest to a point of the picture.

A package registers it with an entry point. Put a `pyproject.toml` beside this file:

    [build-system]
    requires = ["setuptools"]
    build-backend = "setuptools.build_meta"

    [project]
    name = "my-methods"
    version = "1.0"
    dependencies = ["vtprune"]

    [project.entry-points."vtprune.methods"]
    fovea = "own_method:FOVEA"

    [tool.setuptools]
    py-modules = ["own_method"]

After `pip install .` the method can be used like a built-in one:

    vllm serve MODEL --plugin vtprune --prune-method fovea --prune-options '{"x": 0.25}'

A request may choose it if the operator lists it among all methods that requests may choose:

    vllm serve MODEL --plugin vtprune --prune-limits '{"methods": ["scope", "fovea"]}'

`tests/test_own_method.py` does all of this.
"""

import torch
from pydantic import Field
from vtprune_kernels import top_k_sorted

from vllm_pruner.methods.base import Method, Need, Options, VisualTokens


class FoveaOptions(Options):
    """Where to look."""

    x: float = Field(default=0.5, ge=0.0, le=1.0)
    """From the left edge (0) to the right."""

    y: float = Field(default=0.5, ge=0.0, le=1.0)
    """From the top edge (0) to the bottom."""


def select(tokens: VisualTokens, keep: int, options: FoveaOptions) -> torch.Tensor:
    """Return `[images, keep]` indices: exactly `keep`, ascending, without a host sync."""
    assert tokens.grid is not None  # it is in `needs`
    rows, columns = tokens.grid
    device = tokens.features.device
    down = (torch.arange(rows, device=device) + 0.5) / rows - options.y
    right = (torch.arange(columns, device=device) + 0.5) / columns - options.x
    near = -(down[:, None] ** 2 + right[None, :] ** 2).flatten()
    return top_k_sorted(near.expand(len(tokens.features), -1), keep)


FOVEA = Method("fovea", select, FoveaOptions, needs=frozenset({Need.GRID}))
