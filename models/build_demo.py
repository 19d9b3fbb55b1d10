"""Build the demo checkpoints from a seed: python models/build_demo.py [--out DIR] [NAME ...]"""

import argparse
import hashlib
import shutil
from pathlib import Path

from geometry import IMAGE_SIZE, PATCH_SIZE, SHAPES, Shape, llava_config
from safetensors.torch import save_file
from tokenizer import BOS, EOS, PAD, chat_template, train_tokenizer, unspoken_ids
from transformers import (
    CLIPImageProcessor,
    GenerationConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
)
from weights import draw_weights

HERE = Path(__file__).resolve().parent
DEFAULT_OUT = HERE.parent / ".cache" / "models"


def image_processor(shape: Shape) -> CLIPImageProcessor | SiglipImageProcessor:
    square = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    if shape.tower == "siglip":
        return SiglipImageProcessor(size=square)
    return CLIPImageProcessor(size={"shortest_edge": IMAGE_SIZE}, crop_size=square)


def save_processor(shape: Shape, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Tokenizer, image processor and chat template, in the files vLLM and transformers look for."""
    images = image_processor(shape)
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy=shape.strategy,
        num_additional_image_tokens=1 if shape.tower == "clip" else 0,
        image_token="<image>",
        chat_template=chat_template(),
    )
    processor.save_pretrained(folder)
    images.save_pretrained(folder)


def build(shape: Shape, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = llava_config(shape)
    config.save_pretrained(folder)
    GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD).save_pretrained(folder)
    tokenizer = train_tokenizer()
    save_processor(shape, tokenizer, folder)
    if shape.seed is not None:
        weights = draw_weights(config, shape.seed, unspoken_ids(tokenizer))
        file = folder / "model.safetensors"
        save_file(weights, file, metadata={"format": "pt"})
        file.chmod(0o644)  # safetensors writes 0600, which a container's user cannot read


def recipe_hash() -> str:
    recipe = sorted(file for file in HERE.iterdir() if file.suffix in {".py", ".txt", ".jinja"})
    return hashlib.sha256(b"".join(file.read_bytes() for file in recipe)).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR")
    parser.add_argument(
        "names", nargs="*", default=list(SHAPES), metavar="NAME", help="default all"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(SHAPES):
        parser.error(f"no model {', '.join(sorted(unknown))}; there are {', '.join(SHAPES)}")
    for name in arguments.names:
        folder, stamp = arguments.out / name, recipe_hash()
        fresh = (folder / ".stamp").exists() and (folder / ".stamp").read_text() == stamp
        if not fresh:
            build(SHAPES[name], folder)
            (folder / ".stamp").write_text(stamp)
        print(f"{name}: {'up to date' if fresh else 'built'} in {folder}")


if __name__ == "__main__":
    main()
