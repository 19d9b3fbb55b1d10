"""Every name of vLLM that vtprune relies on is looked up at load, and its absence is a sentence."""

from __future__ import annotations

import sys
from functools import reduce
from importlib import import_module
from inspect import getmro, isclass
from typing import Any

import pytest
import vllm
from packaging.version import Version

from vllm_pruner.compat import SUPPORTED, Process, check
from vllm_pruner.compat.symbols import SYMBOLS, Symbol

RELEASE = Version(vllm.__version__).release[:2]
NAMES = list({str(each): each for each in SYMBOLS if each.first <= RELEASE}.values())


def take_away(monkeypatch: pytest.MonkeyPatch, symbol: Symbol) -> None:
    """Make a vLLM without the name."""
    *owners, name = symbol.name.split(".")
    owner: Any = reduce(getattr, owners, import_module(symbol.module))
    if not isclass(owner):
        held = owner if name in vars(owner) else type(owner)
        # `vllm.envs` computes its variables.
        monkeypatch.delattr(*((held, name) if hasattr(held, name) else (owner, "__getattr__")))
        return
    for base in getmro(owner)[:-1]:
        monkeypatch.delattr(base, name, raising=False) if name in vars(base) else None
        annotations = vars(base).get("__annotations__", {})
        monkeypatch.delitem(annotations, name, raising=False)
        code = getattr(vars(base).get("__init__"), "__code__", None)
        if code is not None and name in code.co_names:
            monkeypatch.delattr(base, "__init__")


def test_this_vllm_has_every_name() -> None:
    for symbol in NAMES:
        import_module(symbol.module)
    for process in Process:
        check(process)


@pytest.mark.parametrize("symbol", NAMES, ids=str)
def test_a_missing_name_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, symbol: Symbol
) -> None:
    take_away(monkeypatch, symbol)
    with pytest.raises(RuntimeError) as refusal:
        check(symbol.process)
    start = f"vtprune: this vLLM differs from {SUPPORTED}: it has no "
    assert str(refusal.value).startswith(start)
    assert str(symbol) in str(refusal.value).removeprefix(start).split(", ")


def test_one_sentence_names_all_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    function, attribute = (s for s in NAMES if s.name.endswith(("instrument_manual", "REQUEST_ID")))
    take_away(monkeypatch, function)
    take_away(monkeypatch, attribute)
    with pytest.raises(RuntimeError, match=rf"it has no {function}, {attribute}$"):
        check(Process.TRACING)


def test_a_missing_module_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm.renderers.online_renderer", None)
    with pytest.raises(RuntimeError, match=r"online_renderer:OnlineRenderer\.preprocess_chat"):
        check(Process.SERVER)


def test_a_package_that_vllm_lacks_is_not_taken_for_another_vllm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "vllm.renderers.online_renderer", raising=False)
    monkeypatch.setitem(sys.modules, "openai_harmony", None)
    sentence = r"^vtprune: vLLM's [\w.]+ cannot be imported, because openai_harmony is missing$"
    with pytest.raises(RuntimeError, match=sentence):
        check(Process.SERVER)


@pytest.mark.parametrize(
    "module",
    [
        "vllm.model_executor.models.llava_next",
        "vllm.models.minimax_m3.common.vision_tower",
        "vllm.transformers_utils.processors.kimi_k25_vision_fused",
    ],
)
def test_a_model_of_another_family_is_not_imported(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.delitem(sys.modules, module, raising=False)
    check(Process.ENGINE)
    assert module not in sys.modules
