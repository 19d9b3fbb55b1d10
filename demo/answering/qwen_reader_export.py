"""Write the trained reader of Qwen2.5-VL: python demo/answering/qwen_reader_export.py

Weights are saved as float16: training differs by more than this rounding from seed to seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from qwen_export import DEMO, check, save_model
from qwen_network import QwenAnswerer
from qwen_reader_train import QwenReaderTrainer, widen
from reader import QWEN_READER
from vocabulary import qwen_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    state_file = QwenReaderTrainer.out / "joint.pt"
    parser.add_argument("--state", type=Path, default=state_file, metavar="FILE")
    parser.add_argument("--out", type=Path, default=DEMO / "qwen-reader", metavar="DIR")
    arguments = parser.parse_args()
    model = QwenAnswerer()
    widen(model)
    state = torch.load(arguments.state, weights_only=True)
    model.load_state_dict(state["model"])
    check(model)
    words = qwen_tokenizer(QWEN_READER.ids)
    save_model(model, words, arguments.out, state["step"], torch.float16)


if __name__ == "__main__":
    main()
