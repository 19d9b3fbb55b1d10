"""Write the trained model as a LLaVA-1.5 checkpoint: python demo/answering/export.py"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from batches import GRID, MEAN, PATCH, STD
from network import Answerer
from safetensors.torch import save_file
from trainer import DEFAULT_OUT
from transformers import (
    CLIPImageProcessor,
    GenerationConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from vocabulary import BOS, CHAT_TEMPLATE, EOS, PAD, tokenizer

MODELS = Path(__file__).resolve().parents[1]
sys.path.append(str(MODELS))

from weights import published_name  # noqa: E402  (beside this folder, shared with the random models)


def save_processor(folder: Path, words: PreTrainedTokenizerFast) -> None:
    """Tokenizer, image processor and chat template, in the files vLLM and transformers look for."""
    side = GRID * PATCH
    images = CLIPImageProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=[round(value, 8) for value in MEAN.tolist()],
        image_std=[round(value, 8) for value in STD.tolist()],
    )
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)
    images.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, default=DEFAULT_OUT / "joint.pt", metavar="FILE")
    parser.add_argument("--out", type=Path, default=MODELS / "demo", metavar="DIR")
    arguments = parser.parse_args()
    model = Answerer()
    state = torch.load(arguments.state, weights_only=True)
    model.load_state_dict(state["model"])
    folder = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    weights = {published_name(name): value for name, value in model.llava.state_dict().items()}
    weights["language_model.lm_head.weight"] = model.words.detach().clone()
    file = folder / "model.safetensors"
    weights = {name: value.contiguous() for name, value in weights.items()}
    save_file(weights, file, metadata={"format": "pt", "steps": str(state["step"])})
    file.chmod(0o644)  # safetensors writes 0600, which a container's user cannot read
    model.llava.config.save_pretrained(folder)
    GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD).save_pretrained(folder)
    save_processor(folder, tokenizer())
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB after {state['step']} steps")


if __name__ == "__main__":
    main()
