"""Write the trained model as a Qwen2.5-VL checkpoint: python demo/answering/qwen_export.py"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from batches import MEAN, STD
from qwen_batches import make_ragged_batch
from qwen_network import QwenAnswerer
from qwen_train import QwenTrainer, normalised
from safetensors.torch import save_file
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from vocabulary import QWEN, qwen_tokenizer

DEMO = Path(__file__).resolve().parents[1]
sys.path.append(str(DEMO))

from weights import published_name  # noqa: E402  (beside this folder, shared with the random models)

TEMPLATE = (DEMO / "qwen_template.jinja").read_text()


def save_processor(words: PreTrainedTokenizerFast, folder: Path) -> None:
    """Tokenizer, processors and chat template, in the files vLLM and transformers look for."""
    patch = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
    light = {
        "image_mean": [round(value, 8) for value in MEAN.tolist()],
        "image_std": [round(value, 8) for value in STD.tolist()],
    }
    limits = {"min_pixels": 4 * 28 * 28, "max_pixels": 256 * 28 * 28}
    Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**patch, **light, **limits),
        tokenizer=words,
        video_processor=Qwen2VLVideoProcessor(**patch, **light),
        chat_template=TEMPLATE,
    ).save_pretrained(folder)


@torch.no_grad()
def check(model: QwenAnswerer) -> None:
    """Compare the forward that was trained here with that of transformers.

    Raises:
        SystemExit: they differ; the message has the greatest relative difference.
    """
    batch = make_ragged_batch(2, 0)
    patches = normalised(batch.patches)
    mine = model.see(patches, batch.grid)[0]
    frames = patches.unflatten(-1, (3, 1, -1)).expand(-1, -1, -1, 2, -1).reshape(-1, 2 * 588)
    thw = torch.tensor([[1, 2 * batch.grid[0], 2 * batch.grid[1]]] * 2)
    theirs = model.tower(frames, grid_thw=thw).pooler_output.view_as(mine)
    difference = float((mine - theirs).abs().max() / theirs.abs().max())
    if difference > 1e-4:
        raise SystemExit(f"the tower's output differs from transformers' by {difference:.1e}")


def save_model(
    model: QwenAnswerer,
    words: PreTrainedTokenizerFast,
    folder: Path,
    steps: int,
    dtype: torch.dtype,
) -> None:
    """Write weights, configuration and processor."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {published_name(name): value for name, value in model.qwen.state_dict().items()}
    weights["lm_head.weight"] = model.words.detach().clone()
    file = folder / "model.safetensors"
    weights = {name: value.to(dtype).contiguous() for name, value in weights.items()}
    save_file(weights, file, metadata={"format": "pt", "steps": str(steps)})
    file.chmod(0o644)  # safetensors writes 0600, which a container's user cannot read
    model.qwen.config.save_pretrained(folder)
    start, end = QWEN["<|endoftext|>"], QWEN["<|im_end|>"]
    ends = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": start}
    GenerationConfig(**ends).save_pretrained(folder)
    save_processor(words, folder)
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB after {steps} steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    state_file = QwenTrainer.out / "joint.pt"
    parser.add_argument("--state", type=Path, default=state_file, metavar="FILE")
    parser.add_argument("--out", type=Path, default=DEMO / "qwen", metavar="DIR")
    arguments = parser.parse_args()
    model = QwenAnswerer()
    state = torch.load(arguments.state, weights_only=True)
    model.load_state_dict(state["model"])
    check(model)
    save_model(model, qwen_tokenizer(), arguments.out, state["step"], torch.float32)


if __name__ == "__main__":
    main()
