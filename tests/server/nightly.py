"""A mark for what would take too long in every run: `make test-nightly` runs it alone, and
`VTPRUNE_NIGHTLY=1` among the others."""

from __future__ import annotations

import pytest

__all__ = ["NIGHTLY"]

NIGHTLY = pytest.mark.nightly
