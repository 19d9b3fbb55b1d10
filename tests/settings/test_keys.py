"""The names in vLLM's objects, and where settings are among them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from vllm_pruner.settings import keys


def test_no_two_payloads_have_one_name() -> None:
    names = [getattr(keys, name) for name in keys.__all__ if name.isupper()]
    assert len(set(names)) == len(names) > 1


@pytest.mark.parametrize(
    ("holder", "settings"),
    [
        (None, None),
        (SimpleNamespace(), None),
        (SimpleNamespace(mm_processor_kwargs=None), None),
        (SimpleNamespace(mm_processor_kwargs={"max_pixels": 9}), None),
        (SimpleNamespace(mm_processor_kwargs={"vtprune": {}}), {}),
        (SimpleNamespace(mm_processor_kwargs={"vtprune": {"rate": 0.5}}), {"rate": 0.5}),
    ],
    ids=str,
)
def test_settings_are_found_where_there_are_any(holder: object, settings: object) -> None:
    """Empty ones ask for pruning with every default; none ask for nothing."""
    assert keys.settings_in(holder) == settings
