"""Which vLLM starts: too old is refused, unknown newer ones are let through the canary."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import vllm
from symbol_trees import digests, installed

from vllm_pruner import compat
from vllm_pruner.compat.symbols import SYMBOLS
from vllm_pruner.compat.versions import check, check_version, is_known

RECORD = Path(__file__).parent / "vllm-0.33.0.json"

READ = {
    "vllm.engine.arg_utils:EngineArgs.add_cli_args": "more flags",
    "vllm.engine.arg_utils:EngineArgs.create_model_config": "passes sleep_mode_backend on",
    "vllm.config:ModelConfig.get_inputs_embeds_size": "OPT's width, of no model with pictures",
    "vllm.renderers.online_renderer:OnlineRenderer.preprocess_chat": (
        "a map of reasoning efforts, and prompt ids for the parser; mm_processor_kwargs as before"
    ),
    "vllm.entrypoints.openai.chat_completion.protocol:ChatCompletionRequest": (
        "more fields, all with defaults"
    ),
    "vllm.entrypoints.openai.chat_completion.batch_serving:"
    "OpenAIServingChatBatch.create_batch_chat_completion": "adapters of LoRA are looked up later",
    "vllm.entrypoints.anthropic.serving:AnthropicServingMessages.create_messages": (
        "thinking is read elsewhere, and a stream is converted before it is returned; same answers"
    ),
    "vllm.entrypoints.anthropic.serving:AnthropicServingMessages.count_tokens": (
        "thinking is read elsewhere"
    ),
    "vllm.multimodal.media.image:ImageMediaIO.load_bytes": "a budget of a request's pixels more",
    "vllm.forward_context:set_forward_context": "of a number of tokens, which a tower has none of",
    "vllm.v1.engine.core_client:DPAsyncMPClient.add_request_async": "sends earlier; no other word",
    "vllm.v1.engine.async_llm:AsyncLLM.generate": "an error more is caught; same arguments",
    "vllm.model_executor.models.gemma3_mm:Gemma3ForConditionalGeneration": (
        "says of itself that its images attend both ways, which the text's configuration said"
    ),
    "vllm.model_executor.models.gemma4_mm:Gemma4ForConditionalGeneration._process_image_input": (
        "a tower with adapters takes its limit from a method; the same calls of the tower"
    ),
    "vllm.model_executor.models.internvl:InternVLMultiModalProcessor": "a class renamed in hints",
    "vllm.model_executor.models.internvl:InternVLProcessingInfo.get_hf_processor": "the same",
    "vllm.model_executor.models.internvl:InternVLProcessingInfo.get_num_image_tokens": "the same",
    "vllm.model_executor.models.internvl:BaseInternVLMultiModalProcessor": "the same",
    "vllm.model_executor.models.exaone4_5:Exaone4_5_ForConditionalGeneration": (
        "its tower can normalise pixels itself, as Qwen2.5-VL's; EVS has its rate"
    ),
    "vllm.model_executor.models.molmo2:Molmo2VisionBackbone.forward": (
        "pools by a function of its own, in place; same rows"
    ),
    "vllm.model_executor.models.paddleocr_vl:PaddleOCRVLMultiModalProcessor": (
        "patches of all images are one field, which the family splits"
    ),
    "vllm.model_executor.models.paddleocr_vl:Projector.forward": "images together; same rows",
    "vllm.model_executor.models.paddleocr_vl:SiglipEncoder.forward": (
        "the longest sequence is told from the host, as ours is; same layers"
    ),
    "vllm.model_executor.models.lightonocr:LightOnOCRMultiModalProcessor": (
        "counts by a method of its info, which counts the same, and takes a client's rows"
    ),
    "vllm.model_executor.models.lightonocr:"
    "LightOnOCRForConditionalGeneration._parse_and_validate_image_input": "takes a client's rows",
    "vllm.model_executor.models.pixtral:position_ids_in_meshgrid": (
        "on the device of what it is given, which here is the host; the same numbers"
    ),
    "vllm.model_executor.models.skyworkr1v:SkyworkR1VProcessingInfo.get_hf_processor": "the same",
    "vllm.model_executor.models.qianfan_ocr:QianfanOCRProcessingInfo.get_hf_processor": "the same",
    "vllm.model_executor.models.qianfan_ocr:QianfanOCRForConditionalGeneration": (
        "its configuration is transformers' and gets the fields that the tower reads; same classes"
    ),
    "vllm.model_executor.models.qwen2_5_omni_thinker:Qwen2_5OmniThinkerMultiModalProcessor": (
        "audio between a video's tokens is placed by the seconds that the processor found"
    ),
    "vllm.model_executor.models.pixtral:VisionTransformer.forward": (
        "positions are made on the device, and a rotation is two numbers instead of a complex one"
    ),
    "vllm.models.deepseek_v4.common.vl_model:DeepseekV4ForConditionalGeneration.load_weights": (
        "weights are no longer sorted, but the decoder's come first"
    ),
    "vllm.models.qwen4_exp:Qwen4ExpForConditionalGeneration": (
        "asks of a rank of a pipeline that is not the first whether there are levels of DeepStack"
    ),
    "vllm.models.minimax_m3.common.vision_tower:"
    "MiniMaxVLVisionTransformer.prepare_encoder_metadata": "the rotation may be another platform's",
    "vllm.v1.worker.gpu_worker:Worker.finish_weight_update": "restores heads of draft models",
    "vllm.model_executor.models.mistral3:"
    "Mistral3ForConditionalGeneration._parse_and_validate_image_input": "a class in hints",
}
"""What 0.33 changed in the names of the table, read on 2026-11-27, 29 and 30
and 12-01: why none matters."""


@pytest.mark.parametrize("version", ["0.30.2", "0.9.1", "0.30.0+cpu"])
def test_a_vllm_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(vllm, "__version__", version)
    with pytest.raises(RuntimeError, match=rf"^vtprune: vLLM is {version.replace('+', '.')}; allo"):
        check_version()


@pytest.mark.parametrize("version", ["0.31.0", "0.32.0+cpu", "0.33.2", "0.33.0rc1"])
def test_a_vllm_that_was_checked_starts(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(vllm, "__version__", version)
    check_version()
    assert is_known()


@pytest.mark.parametrize("version", ["0.34.0", "1.0.0", "0.34.0.dev7+g1a2b3c", "0.1.dev9", "dev"])
def test_a_newer_vllm_starts_as_unknown(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(vllm, "__version__", version)
    check_version()
    assert not is_known()


def test_names_that_came_later_are_not_asked_of_an_older_vllm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vllm.multimodal.processing import BaseMultiModalProcessor

    monkeypatch.setattr(vllm, "__version__", "0.32.0")
    monkeypatch.delattr(BaseMultiModalProcessor, "_get_mm_hashes", raising=False)
    with pytest.raises(RuntimeError, match="_get_mm_hashes"):
        check(compat.Process.SERVER)
    monkeypatch.setattr(vllm, "__version__", "0.31.0")
    check(compat.Process.SERVER)


def test_an_image_is_identified_with_and_without_a_rule_of_the_processor() -> None:
    class Inputs:
        def get_mm_hashes(self, model: str, algorithm: str) -> dict[str, list[str]]:
            return {"image": [f"{model} {algorithm}"]}

    config = SimpleNamespace(mm_hasher_algorithm="blake3")
    info = SimpleNamespace(model_id="m", ctx=SimpleNamespace(get_mm_config=lambda: config))
    older: Any = SimpleNamespace(info=info)
    newer: Any = SimpleNamespace(info=info, _get_mm_hashes=lambda inputs: {"image": ["its own"]})
    inputs: Any = Inputs()
    assert compat.item_identities(older, inputs, "image") == ["m blake3"]
    assert compat.item_identities(newer, inputs, "image") == ["its own"]


@pytest.fixture(scope="module")
def of_0_33() -> dict[str, str | None]:
    recorded: dict[str, str | None] = json.loads(RECORD.read_text())
    return recorded


def test_every_name_is_in_0_33(of_0_33: dict[str, str | None]) -> None:
    """A name that is new in the table: record again, as CONTRIBUTING says."""
    assert {str(symbol) for symbol in SYMBOLS} == set(of_0_33)
    assert [name for name, digest in of_0_33.items() if digest is None] == []


@pytest.mark.skipif(not vllm.__version__.startswith("0.32."), reason="compares 0.32 with 0.33")
def test_0_33_differs_from_0_32_in_nothing_that_was_not_read(
    of_0_33: dict[str, str | None],
) -> None:
    here = digests(installed())
    assert None not in here.values()
    changed = {name for name, digest in here.items() if of_0_33[name] != digest}
    assert changed == set(READ)


def test_the_comparison_sees_a_changed_line_and_a_lost_name(tmp_path: Path) -> None:
    from symbol_trees import Sources

    package = tmp_path / "vllm"
    package.mkdir()
    (package / "__init__.py").write_text("from vllm.part import *\n")
    part = (
        "class A:\n    x: int = 1\n    def f(self, a):\n        {}return a\nclass B(A):\n    ...\n"
    )

    def digest(name: str, inserted: str) -> str | None:
        (package / "part.py").write_text(part.format(inserted))
        return Sources(tmp_path).digest("vllm", name)

    plain = digest("B.f", "")
    assert plain is not None
    assert digest("B.f", '"""Documented."""\n        ') == plain
    assert digest("B.f", "# a comment\n        ") == plain
    assert digest("B.f", "a += 1\n        ") != plain
    assert digest("B.g", "") is None
    assert digest("A.x", "") is not None
