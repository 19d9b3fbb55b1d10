"""A vLLM that is built in another way is refused when vtprune loads, in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_pruner import compat


def _unused(*_: Any) -> Any:
    raise AssertionError("nothing is patched, so nothing is called")


def _without(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    """Take `name` away, and the mark of a patch that another test has applied."""
    monkeypatch.delattr(owner, "_vtprune", raising=False)
    monkeypatch.delattr(owner, name)


def test_engine_arguments_made_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.engine.arg_utils import EngineArgs

    _without(monkeypatch, EngineArgs, "create_model_config")
    with pytest.raises(RuntimeError, match=r"^vtprune: vLLM is not built .*create_model_config"):
        compat.patch_engine_args(_unused, _unused, _unused)
    assert "_vtprune" not in vars(EngineArgs)


def test_chat_requests_made_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.renderers.online_renderer import OnlineRenderer

    _without(monkeypatch, OnlineRenderer, "preprocess_chat")
    with pytest.raises(RuntimeError, match=r"^vtprune: vLLM is not built .*preprocess_chat"):
        compat.patch_chat("vtprune", _unused, _unused, _unused)
    assert "_vtprune" not in vars(OnlineRenderer)


def test_spans_made_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.engine import output_processor
    from vllm.v1.engine.async_llm import AsyncLLM

    monkeypatch.delattr(AsyncLLM, "_vtprune", raising=False)
    monkeypatch.delattr(output_processor, "instrument_manual")
    with pytest.raises(RuntimeError, match=r"^vtprune: vLLM is not built .*instrument_manual"):
        compat.patch_tracing(_unused)
    assert "_vtprune" not in vars(AsyncLLM)


def test_a_tower_built_in_another_way() -> None:
    from torch import nn

    with pytest.raises(RuntimeError, match=r"^vtprune: Linear has no MMEncoderAttention at "):
        compat.tower_attention(nn.Linear(1, 1))
    with pytest.raises(RuntimeError, match=r"^vtprune: Linear has no Embedding at "):
        compat.position_embedding(nn.Linear(1, 1))
