"""A mark for what would take too long in every run: `VTPRUNE_NIGHTLY=1` runs it."""

from __future__ import annotations

import os

import pytest

__all__ = ["NIGHTLY"]

NIGHTLY = pytest.mark.skipif(
    not os.environ.get("VTPRUNE_NIGHTLY"), reason="VTPRUNE_NIGHTLY is not set"
)
