"""Write the trained reader as a LLaVA-1.5 checkpoint: python demo/answering/reader_export.py

Weights are saved as float16: training differs by more than this rounding from seed to seed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from export import MODELS, save_processor
from network import Answerer
from reader import LLAVA_READER
from reader_train import ReaderTrainer, widen
from safetensors.torch import save_file
from transformers import GenerationConfig
from vocabulary import BOS, EOS, PAD, tokenizer

sys.path.append(str(MODELS))

from weights import published_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    state_file = ReaderTrainer.out / "joint.pt"
    parser.add_argument("--state", type=Path, default=state_file, metavar="FILE")
    parser.add_argument("--out", type=Path, default=MODELS / "reader", metavar="DIR")
    arguments = parser.parse_args()
    model = Answerer()
    widen(model)
    state = torch.load(arguments.state, weights_only=True)
    model.load_state_dict(state["model"])
    folder = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    weights = {published_name(name): value for name, value in model.llava.state_dict().items()}
    weights["language_model.lm_head.weight"] = model.words.detach()
    file = folder / "model.safetensors"
    weights = {name: value.half().contiguous() for name, value in weights.items()}
    save_file(weights, file, metadata={"format": "pt", "steps": str(state["step"])})
    file.chmod(0o644)  # safetensors writes 0600, which a container's user cannot read
    model.llava.config.save_pretrained(folder)
    GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD).save_pretrained(folder)
    save_processor(folder, tokenizer(LLAVA_READER.ids))
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB after {state['step']} steps")


if __name__ == "__main__":
    main()
