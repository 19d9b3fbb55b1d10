"""A vLLM that is built in another way is refused when vtprune loads, in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_pruner import compat


def _unused(*_: Any) -> Any:
    raise AssertionError("nothing is patched, so nothing is called")


def test_engine_arguments_made_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.engine.arg_utils import EngineArgs

    before = vars(EngineArgs)["add_cli_args"]
    monkeypatch.delattr(EngineArgs, "create_model_config")
    with pytest.raises(RuntimeError, match=r"^vtprune: vLLM is not built .*create_model_config"):
        compat.patch_engine_args(_unused, _unused, _unused)
    assert vars(EngineArgs)["add_cli_args"] is before


def test_chat_requests_made_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.renderers.online_renderer import OnlineRenderer

    before = OpenAIServingChat.create_chat_completion
    monkeypatch.delattr(OnlineRenderer, "preprocess_chat")
    with pytest.raises(RuntimeError, match=r"^vtprune: vLLM is not built .*preprocess_chat"):
        compat.patch_chat("vtprune", _unused, _unused, _unused)
    assert OpenAIServingChat.create_chat_completion is before


def test_spans_made_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.engine import output_processor
    from vllm.v1.engine.async_llm import AsyncLLM

    before = AsyncLLM.generate
    monkeypatch.delattr(output_processor, "instrument_manual")
    with pytest.raises(RuntimeError, match=r"^vtprune: vLLM is not built .*instrument_manual"):
        compat.patch_tracing(_unused)
    assert AsyncLLM.generate is before


def test_a_tower_built_in_another_way() -> None:
    from torch import nn

    with pytest.raises(RuntimeError, match=r"^vtprune: Linear has no MMEncoderAttention at "):
        compat.tower_attention(nn.Linear(1, 1))
    with pytest.raises(RuntimeError, match=r"^vtprune: Linear has no Embedding at "):
        compat.position_embedding(nn.Linear(1, 1))
