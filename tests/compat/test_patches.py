"""A vLLM that is built in another way is refused when vtprune loads, in one sentence."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from vllm_pruner import compat
from vllm_pruner.compat.chat import _Hooks, _with_settings
from vllm_pruner.compat.patching import Patch, apply
from vllm_pruner.prompt import rendering


def _unused(*_: Any) -> Any:
    raise AssertionError("nothing is patched, so nothing is called")


def test_engine_arguments_made_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.engine.arg_utils import EngineArgs

    before = vars(EngineArgs)["add_cli_args"]
    monkeypatch.delattr(EngineArgs, "create_model_config")
    with pytest.raises(RuntimeError, match=r"^vtprune: this vLLM .* has no create_model_config"):
        compat.patch_engine_args(_unused, _unused, _unused)
    assert vars(EngineArgs)["add_cli_args"] is before


def test_chat_requests_made_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.renderers.online_renderer import OnlineRenderer

    before = OpenAIServingChat.create_chat_completion
    monkeypatch.delattr(OnlineRenderer, "preprocess_chat")
    with pytest.raises(RuntimeError, match=r"^vtprune: this vLLM .* has no preprocess_chat"):
        compat.patch_chat("vtprune", _unused, _unused, _unused, _unused, _unused, _unused, _unused)
    assert OpenAIServingChat.create_chat_completion is before


def test_prompts_processed_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.multimodal.processing import BaseMultiModalProcessor

    monkeypatch.delattr(BaseMultiModalProcessor, "apply")
    with pytest.raises(RuntimeError, match=r"^vtprune: this vLLM .* has no apply"):
        compat.patch_stock_processor("vtprune", _unused)


def test_spans_made_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.engine import output_processor
    from vllm.v1.engine.async_llm import AsyncLLM

    before = AsyncLLM.generate
    monkeypatch.delattr(output_processor, "instrument_manual")
    with pytest.raises(RuntimeError, match=r"^vtprune: this vLLM .* has no instrument_manual"):
        compat.patch_tracing(_unused)
    assert AsyncLLM.generate is before


def test_a_tower_built_in_another_way() -> None:
    from torch import nn

    with pytest.raises(RuntimeError, match=r"^vtprune: Linear has no MMEncoderAttention at "):
        compat.tower_attention(nn.Linear(1, 1), "blocks", -1, "attn")
    with pytest.raises(RuntimeError, match=r"^vtprune: Linear has no Embedding at "):
        compat.position_embedding(nn.Linear(1, 1))


def test_an_attribute_is_replaced_once_and_stays_what_it_is() -> None:
    class Owner:
        @staticmethod
        def fixed(value: int) -> int:
            """Documented."""
            return value

        @classmethod
        def of_class(cls, value: int) -> tuple[type, int]:
            return cls, value

    def plus_one(function: Any) -> Any:
        return lambda *args: function(*args[:-1], args[-1] + 1)

    patches = [Patch(Owner, name, plus_one) for name in ("fixed", "of_class")]
    apply(*patches)
    apply(*patches)
    assert Owner.fixed(1) == 2 and Owner().fixed(1) == 2
    assert Owner.of_class(1) == (Owner, 2)
    assert Owner.fixed.__doc__ == "Documented."


def test_requests_at_once_see_their_own_settings_only() -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.renderers.online_renderer import OnlineRenderer

    async def preprocess(self: OnlineRenderer, request: Any, messages: list[Any]) -> Any:
        seen = []
        for _ in range(3):
            seen.append((self.trust_request_mm_kwargs, request.mm_processor_kwargs))
            counts.append(rendering.rendered())
            await asyncio.sleep(0)
        return messages, [seen]

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(patched(renderer, request, []) for request in requests))

    rates, counts = [0.25, None, 0.5], []
    requests = [
        ChatCompletionRequest(messages=[{"role": "user", "content": str(rate)}]) for rate in rates
    ]
    rate_of = {id(request): rate for request, rate in zip(requests, rates, strict=True)}
    renderer = object.__new__(OnlineRenderer)
    renderer.model_config = renderer.trust_request_mm_kwargs = False  # type: ignore[assignment]

    def requested(_config: Any, request: Any, _messages: Any) -> dict[str, Any] | None:
        rate = rate_of[id(request)]
        return None if rate is None else {"rate": rate}

    hooks = _Hooks("vtprune", requested, lambda *_: None, lambda _, same: same, rendering.counted)
    patched = _with_settings(hooks, preprocess)
    for rate, (_, (seen,)) in zip(rates, asyncio.run(all_at_once()), strict=True):
        carried = (False, None) if rate is None else (True, {"vtprune": {"rate": rate}})
        assert seen == [carried] * 3
    assert (max(counts), rendering.rendered()) == (len(requests), 0)
    assert renderer.trust_request_mm_kwargs is False
    assert [request.mm_processor_kwargs for request in requests] == [None] * 3
