"""What `transformers` makes of the first picture of `answer_record`, and answers to rows of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from native_oracle import native
from position_record import PICTURES
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
)
from vllm_process import MODELS

__all__ = ["Oracle", "as_pruned"]

PICTURE = PICTURES["wide"]
KINDS: dict[str, Any] = {"2.6": Qwen2Config, "4.5": Qwen3Config}
"""Of decoders of MiniCPM-V with a resampler, by version."""


class Oracle:
    """A checkpoint in `transformers`."""

    model: Any

    def __init__(self, checkpoint: str, stock: torch.Tensor) -> None:
        """Load it, and encode the picture.

        Args:
            checkpoint: its name.
            stock: the rows of stock vLLM, unpruned; the oracle's own have to be equal.
        """
        folder = MODELS / checkpoint
        self._columns, self._rows = 0, stock
        if (folder / "params.json").exists():
            self._take(*native(folder, PICTURE), stock)
            return
        config = json.loads((folder / "config.json").read_text())
        if config.get("model_type") == "minicpmv":  # the same, and the configuration is its own
            kind = KINDS[str(config["version"])]
            self.model = AutoModelForCausalLM.from_config(kind(**config)).float().eval()
            self._load(folder, "llm.")
            return
        if config.get("model_type") == "step_robotics":
            kind = Qwen3Config(**config["text_config"])
            self.model = AutoModelForCausalLM.from_config(kind).float().eval()
            self._load(folder, "")
            return
        if "llm_config" in config:  # transformers has the decoder only; its rows are stock vLLM's
            self.model = Qwen2ForCausalLM(Qwen2Config(**config["llm_config"])).float().eval()
            self._load(folder, "language_model.")
            return
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()
        processor: Any = AutoProcessor.from_pretrained(folder)
        inputs = processor(text=[processor.image_token], images=[PICTURE], return_tensors="pt")
        self._take(model, inputs, getattr(processor, "image_break_token_id", None), stock)

    def _load(self, folder: Path, prefix: str) -> None:
        """Load a decoder."""
        weights = load_file(folder / "model.safetensors")
        own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        if not prefix:  # which would tell what is the tower's
            own = {name: own[name] for name in self.model.state_dict()}
        self.model.load_state_dict(own)
        self._decoder = self.model.model

    def _take(self, model: Any, inputs: Any, line_break: int | None, stock: torch.Tensor) -> None:
        """Use a model, the processor's output for the picture, and the token of a row break."""
        self.model = model
        inner = getattr(model, "model", model)  # Llama 4 is not wrapped
        decoder = getattr(inner, "text_model", None) or inner.language_model
        self._decoder = getattr(decoder, "model", decoder)
        names = ("image_sizes", "pixel_attention_mask", "image_position_ids", "target_sizes")
        names += ("spatial_shapes",)
        more = {name: inputs[name] for name in names if name in inputs}
        features = inner.get_image_features(inputs["pixel_values"].float(), **more)
        rows = features.pooler_output
        if rows is None:
            rows = inner.multi_modal_projector(features.last_hidden_state)
        self._rows = torch.cat([r.reshape(-1, stock.shape[1]) for r in rows])
        assert torch.allclose(self._rows, stock, atol=1e-3), "stock vLLM and transformers differ"
        if line_break is not None:
            breaks = (inputs["input_ids"] == line_break).sum()
            self._columns = len(self._rows) // (int(breaks) + 1)
            self._break = torch.tensor([line_break])

    def kept(self, index: list[int]) -> torch.Tensor:
        """Return the rows of kept tokens, a break behind each row of the picture but the last."""
        if not self._columns:
            return self._rows[index]
        lines = range(0, len(self._rows), self._columns)
        parts = [self._rows[[i for i in index if 0 <= i - at < self._columns]] for at in lines]
        line_break = self.model.get_input_embeddings()(self._break)
        return torch.cat([each for part in parts for each in (part, line_break)][:-1])

    def scores(self, embeds: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities `[tokens, words]` of one prompt.

        Args:
            embeds: what the decoder gets of each of its tokens.
            words: these tokens, 0 for those of a picture: Gemma 4 looks them up for each layer.
        """
        more = {}
        if getattr(self._decoder, "hidden_size_per_layer_input", 0):
            more["per_layer_inputs"] = self._decoder.get_per_layer_inputs(words, None)
        hidden = self._decoder(inputs_embeds=embeds, **more).last_hidden_state
        scores: torch.Tensor = self.model.get_output_embeddings()(hidden)[0]
        scale = getattr(self.model.config.get_text_config(), "logit_scale", 1.0)  # Cohere's
        return (scores * scale).log_softmax(-1)


def as_pruned(checkpoint: str, prompt: list[int]) -> list[int]:
    """Return a stock prompt with rows of the model where pruned prompts have them: in place of row
    breaks too, of a model that has breaks, and of Molmo2's marks."""
    file = MODELS / checkpoint / "tokenizer.json"
    if file.exists():
        words = json.loads(file.read_text())["added_tokens"]
        ids = {word["content"]: word["id"] for word in words}
    else:
        words = json.loads(file.with_name("tekken.json").read_text())["special_tokens"]
        ids = {word["token_str"]: word["rank"] for word in words}
    marks = {ids.get(mark) for mark in ("<im_col>", "<im_start>", "<low_res_im_start>", "<im_end>")}
    if "<im_col>" in ids:  # where Step has none, its marks stay text
        return [ids["<im_patch>"] if token in marks else token for token in prompt]
    return [ids["[IMG]"] if token == ids.get("[IMG_BREAK]") else token for token in prompt]
