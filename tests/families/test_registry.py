"""Where families come from: our table, and entry points of other packages."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from contract import LACKING
from installed_package import declare_package
from pruned_model import stock_class
from started import engine_arguments
from vllm.model_executor.models.minicpmv import MiniCPMV2_6
from vllm.model_executor.models.registry import _ModelInfo

from vllm_pruner import compat
from vllm_pruner.families import registry
from vllm_pruner.families.llava import LLAVA
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.defaults import DEFAULT_METHOD, DEFAULT_RATE, EMPTY_RATE
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.server import ServerConfig
from vllm_pruner.settings.setting import settings_of

OUTSIDE = """
import dataclasses
from vllm_pruner.families.llava import LLAVA, PrunedLlava

class Mine(PrunedLlava):
    family = dataclasses.replace(LLAVA, name="mine")

class Without:
    family = None
"""

READERS = {"glm_ocr": "GLM-OCR", "paddleocr_vl": "PaddleOCR-VL"}
READERS |= {"dots_ocr": "dots.ocr", "lightonocr": "LightOnOCR", "deepseek_ocr": "DeepSeek-OCR"}
"""Families of models that read documents, and how users call them."""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a package with entry points on the path, gone again after the test."""

    def forget() -> None:
        registry.classes.cache_clear()
        registry._load.cache_clear()

    def install(**entry_points: str) -> None:
        declare_package(tmp_path, "elsewhere", "vtprune.families", entry_points)
        (tmp_path / "elsewhere_families.py").write_text(OUTSIDE)
        monkeypatch.syspath_prepend(tmp_path)
        forget()

    yield install
    monkeypatch.undo()
    forget()


def _config(*architectures: str) -> Any:
    return SimpleNamespace(architectures=list(architectures))


def test_a_family_from_outside_is_one_like_ours(install: Install) -> None:
    install(MineForConditionalGeneration="elsewhere_families:Mine")
    assert registry.classes()["MineForConditionalGeneration"] == "elsewhere_families:Mine"
    assert registry.family_of(_config("MineForConditionalGeneration")).name == "mine"
    assert registry.family_of(_config("LlavaForConditionalGeneration")) is LLAVA


def test_the_help_names_the_defaults_of_the_families() -> None:
    """The README and the help say so of LLaVA's, of those that read documents and of others."""
    families = [registry._load(each) for each in registry.classes() if each not in LACKING]
    defaults = defaultdict(set)
    for each in families:
        kind = "reads" if each.name in READERS else each.name.startswith("llava")
        defaults[kind].add((each.default_method, each.default_rate))
    assert defaults == {
        True: {(DEFAULT_METHOD, DEFAULT_RATE)},
        False: {("vispruner", 1 / 2)},
        "reads": {("pixels", 1 / 2)},
    }
    said = {each.key: each.default for each in settings_of(ServerConfig)}
    readers = ", ".join(READERS.values())
    assert said["method"] == (
        f"`{DEFAULT_METHOD}` for LLaVA's families, `pixels` for models that read documents "
        f"({readers}), `vispruner` for all others"
    )
    assert said["rate"].startswith("8/9")
    assert said["rate"].endswith(
        "1/2 for families other than LLaVA; 0.95 for all with the floor `content`, which `pixels` "
        "has"
    )
    assert EMPTY_RATE == 0.95


@pytest.mark.parametrize(
    ("checkpoint", "said", "expected"),
    [
        ("demo-glm-ocr", {}, ("pixels", 0.95, "content")),
        ("demo-glm-ocr", {"floor": "off"}, ("pixels", 0.5, "off")),
        ("demo-glm-ocr", {"method": "vispruner"}, ("vispruner", 0.5, "text")),
        ("demo-glm-ocr", {"rate": 0.7}, ("pixels", 0.7, "content")),
        ("demo-glm4v", {}, ("vispruner", 0.5, "text")),
        ("demo-glm4v", {"method": "pixels"}, ("pixels", 0.95, "content")),
        ("demo", {"floor": "content"}, (DEFAULT_METHOD, 0.95, "content")),
        ("demo", {}, (DEFAULT_METHOD, DEFAULT_RATE, "text")),
    ],
    ids=str,
)
def test_what_an_operator_leaves_open_is_the_familys(
    checkpoint: str, said: dict[str, Any], expected: tuple[str, float, str]
) -> None:
    """But for the rate of what is empty, which is that of the floor."""
    arguments = engine_arguments(checkpoint, said)
    arguments.create_model_config()
    config = ServerConfig.parse(arguments.mm_processor_kwargs["vtprune"])
    assert (config.method, config.rate, config.floor) == expected


def test_two_classes_of_one_architecture_are_refused(install: Install) -> None:
    install(LlavaForConditionalGeneration="elsewhere_families:Mine")
    with pytest.raises(ConfigError) as raised:
        registry.classes()
    assert str(raised.value) == (
        "architecture LlavaForConditionalGeneration has the classes "
        "vllm_pruner.families.llava:PrunedLlava and elsewhere_families:Mine of installed packages "
        "(vtprune.families); allowed: one"
    )


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("elsewhere_families:Gone", "architecture Broken cannot be loaded from"),
        ("no_such_module:Mine", "architecture Broken cannot be loaded from"),
        ("elsewhere_families:Without", "is NoneType; allowed: a Family"),
    ],
)
def test_a_broken_package_is_named_when_its_model_is_served(
    install: Install, value: str, fault: str
) -> None:
    install(Broken=value)
    with pytest.raises(ConfigError, match=fault):
        registry.family_of(_config("Broken"))


def test_a_model_that_this_vllm_lacks_is_refused_with_what_it_lacks(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fixture forgets families before and after."""
    install()
    theirs, ours = "vllm.model_executor.models.minicpmv4_7", "vllm_pruner.families.minicpmv4_7"
    monkeypatch.setitem(sys.modules, theirs, None)
    monkeypatch.delitem(sys.modules, ours, raising=False)
    with pytest.raises(ConfigError, match=f"; allowed: a vLLM that has {theirs}, which this one"):
        registry.family_of(_config("MiniCPMV4_7ForConditionalGeneration"))


def test_an_unknown_architecture_is_answered_with_those_there_are() -> None:
    with pytest.raises(ConfigError) as raised:
        registry.visual_tokens(
            SimpleNamespace(hf_config=_config("LlamaForCausalLM")), PruneConfig()
        )
    assert str(raised.value) == (
        "architecture is LlamaForCausalLM; allowed: Cohere2VisionForConditionalGeneration, "
        "Cosmos3ForConditionalGeneration, DeepseekOCRForCausalLM, "
        "DeepseekV4ForConditionalGeneration, "
        "DotsOCRForCausalLM, "
        "Ernie4_5_VLMoeForConditionalGeneration, "
        "Exaone4_5_ForConditionalGeneration, Gemma3ForConditionalGeneration, "
        "Gemma4ForConditionalGeneration, "
        "Glm4vForConditionalGeneration, "
        "Glm4vMoeForConditionalGeneration, Glm5NextForConditionalGeneration, "
        "GlmOcrForConditionalGeneration, "
        "Idefics3ForConditionalGeneration, "
        "InternS1ForConditionalGeneration, "
        "InternS2MobiusForConditionalGeneration, "
        "InternS2PreviewForConditionalGeneration, InternVLChatModel, "
        "InternVLForConditionalGeneration, "
        "KeyeForConditionalGeneration, KeyeVL1_5ForConditionalGeneration, "
        "KimiK25ForConditionalGeneration, KimiK3ForConditionalGeneration, "
        "KimiVLForConditionalGeneration, Lfm2VlForConditionalGeneration, "
        "LightOnOCRForConditionalGeneration, "
        "Llama4ForConditionalGeneration, "
        "LlavaForConditionalGeneration, "
        "LlavaNextForConditionalGeneration, LlavaOnevisionForConditionalGeneration, "
        "MiniCPMV, MiniCPMV4_6ForConditionalGeneration, "
        "MiniCPMV4_7ForConditionalGeneration, "
        "MiniMaxM3SparseForConditionalGeneration, "
        "Mistral3ForConditionalGeneration, Molmo2ForConditionalGeneration, "
        "NemotronH_Nano_Omni_Reasoning_V3, NemotronH_Nano_VL_V2, NemotronH_Omni_Reasoning_V3, "
        "NemotronH_Super_Omni_Reasoning_V3, PaddleOCRVLForConditionalGeneration, "
        "PixtralForConditionalGeneration, "
        "QianfanOCRForConditionalGeneration, "
        "Qwen2VLForConditionalGeneration, "
        "Qwen2_5OmniForConditionalGeneration, Qwen2_5OmniModel, "
        "Qwen2_5_VLForConditionalGeneration, "
        "Qwen3_5ForConditionalGeneration, Qwen3_5MoeForConditionalGeneration, "
        "Qwen3OmniMoeForConditionalGeneration, "
        "Qwen3VLForConditionalGeneration, Qwen3VLMoeForConditionalGeneration, "
        "Qwen4ExpForConditionalGeneration, "
        "SkyworkR1VChatModel, SmolVLMForConditionalGeneration, "
        "StepVLForConditionalGeneration"
    )


@pytest.mark.skipif(not compat.encoder_graphs_known(), reason="another vLLM, 0.31")
@pytest.mark.parametrize("architecture", registry.classes())
def test_a_family_knows_whether_vllm_captures_its_tower(architecture: str) -> None:
    own = CHOSEN.get(architecture) or stock_class(registry.classes()[architecture])
    family = registry.family_of(SimpleNamespace(architectures=[architecture]))
    has_graphs = hasattr(own, "encoder_cudagraph_forward") and architecture not in IN_NAME_ONLY
    assert family.stock_captured == has_graphs


CHOSEN: dict[str, Any] = {"MiniCPMV": MiniCPMV2_6}
"""The class of a model, where that of its architecture chooses one by the model's version."""

IN_NAME_ONLY = {
    *("GlmOcrForConditionalGeneration", "Ernie4_5_VLMoeForConditionalGeneration"),
    "StepVLForConditionalGeneration",
}
"""The first inherits GLM-V's graphs, for a tower that lacks what these prepare (`test_glm_ocr`);
the second's end an engine at an image that fits none of them (`test_ernie`), and Step's write a
picture over the one before (`test_step`)."""


READ_IDS = {"Qwen4ExpForConditionalGeneration", "DeepseekV4ForConditionalGeneration"}
"""Models whose decoders get the ids of a prompt beside its rows."""


@pytest.mark.parametrize("architecture", sorted({*registry.classes()} - LACKING))
def test_vllm_sees_in_a_class_of_ours_what_it_sees_in_its_own(architecture: str) -> None:
    """The runner, the caches and the inputs of a model follow from that."""
    ours = registry.classes()[architecture]
    seen = [
        replace(_ModelInfo.from_model_cls(each), architecture="")
        for each in (EntryPoint("", ours, "").load(), stock_class(ours))
    ]
    assert seen[0] == seen[1]
    assert seen[0].requires_raw_input_tokens == (architecture in READ_IDS)
