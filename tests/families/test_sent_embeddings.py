"""Embeddings that a client sends: metadata without rows, and rows in place of text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from pruning_processor import pruning_processor
from vllm.exceptions import VLLMValidationError

from vllm_pruner.compat.versions import at_least
from vllm_pruner.settings.keys import PLAN_TEXT

pytestmark = pytest.mark.skipif(
    not at_least((0, 32)), reason="vLLM 0.31 says of neither what it is"
)

GRID = torch.tensor([[1, 8, 8]])
ALONE: dict[str, dict[str, torch.Tensor]] = {
    "image": {"image_grid_thw": GRID},
    "video": {"video_grid_thw": GRID},
    "audio": {"audio_feature_lengths": torch.tensor([40])},
}


@pytest.fixture(scope="module")
def processor() -> Any:
    """That of an engine behind an encoder of its own, or behind another engine's KV."""
    found = pruning_processor("demo-qwen2.5-omni", enable_mm_embeds=True)
    found.info.ctx.model_config.multimodal_config.allow_missing_mm_embeddings = True
    return found


@pytest.mark.parametrize("modality", ALONE)
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_metadata_without_rows_is_refused(processor: Any, modality: str, rate: float) -> None:
    """The engine would end: it has nothing to encode, and finds no rows by a client's name."""
    items = processor.info.parse_mm_data({modality: ALONE[modality]})
    assert len(items[modality]) == 1, "vLLM takes it"
    with pytest.raises(VLLMValidationError, match=f"{modality}_embeds is given without its rows"):
        processor(
            "Hi.", items, {modality: ["x"]}, hf_processor_mm_kwargs={"vtprune": {"rate": rate}}
        )


def test_what_stands_for_embeddings_is_no_question(processor: Any) -> None:
    """A method would match pictures with the row of a token that nobody has trained."""
    tokenizer = processor.info.get_tokenizer()
    from vllm.renderers.chat_utils import PROMPT_EMBEDS_PLACEHOLDER_TOKEN as sent

    tokenizer.add_special_tokens({"additional_special_tokens": [sent]})  # as vLLM's renderer does
    content = [{"type": "image"}, {"type": "text", "text": "{}"}]
    template = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )

    def asks(text: str) -> str:
        items = processor.info.parse_mm_data({"image": [Image.new("RGB", (112, 112))]})
        kwargs = {"vtprune": {"method": "cdpruner", "tokens": 4}}
        output = processor(template.replace("{}", text), items, hf_processor_mm_kwargs=kwargs)
        (item,) = output["mm_kwargs"]["image"]
        return str(tokenizer.decode(item[PLAN_TEXT].data)).strip()

    assert asks(f"{sent}{sent} What is this?{sent}") == asks("What is this?") == "What is this?"
    assert asks(sent * 3) == ""
