"""Build the demo checkpoints from a seed: python demo/build_demo.py [--out DIR] [NAME ...]"""

import argparse
import hashlib
import shutil
from pathlib import Path

from models import SHAPES, AnyShape
from shapes import (
    CohereShape,
    Gemma4Shape,
    GemmaShape,
    Glm5Shape,
    GlmOcrShape,
    GlmShape,
    IdeficsShape,
    InternShape,
    KimiK3Shape,
    KimiShape,
    Lfm2Shape,
    Llama4Shape,
    MiniCPMShape,
    MiniMaxShape,
    MistralShape,
    NemotronShape,
    OnevisionShape,
    PaddleShape,
    QwenShape,
    RelativeShape,
)

HERE = Path(__file__).resolve().parent
DEFAULT_OUT = HERE.parent / ".cache" / "models"


def build(shape: AnyShape, folder: Path, stamp: str) -> None:
    """Write the model beside `folder`, then put it there: a folder that exists is complete."""
    # These import transformers: seconds, not needed when fresh.
    from checkpoint import write_checkpoint
    from cohere import write_cohere
    from gemma import write_gemma
    from gemma4 import write_gemma4
    from glm import write_glm
    from glm5 import write_glm5
    from glm_ocr import write_glm_ocr
    from idefics import write_idefics
    from intern import write_intern
    from kimi import write_kimi
    from kimi_k3 import write_kimi_k3
    from kimi_k25 import write_kimi_k25
    from lfm2 import write_lfm2
    from llama4 import write_llama4
    from minicpm import write_minicpm
    from minimax import write_minimax
    from mistral import write_mistral
    from nemotron import write_nemotron
    from onevision import write_onevision
    from paddle import write_paddle
    from pixtral import write_pixtral
    from qwen import write_qwen
    from relatives import write_relative

    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    if isinstance(shape, QwenShape):
        write_qwen(shape, part)
    elif isinstance(shape, GlmShape):
        write_glm(shape, part)
    elif isinstance(shape, Glm5Shape):
        write_glm5(shape, part)
    elif isinstance(shape, PaddleShape):
        write_paddle(shape, part)
    elif isinstance(shape, GlmOcrShape):
        write_glm_ocr(shape, part)
    elif isinstance(shape, InternShape):
        write_intern(shape, part)
    elif isinstance(shape, IdeficsShape):
        write_idefics(shape, part)
    elif isinstance(shape, MistralShape):
        (write_pixtral if shape.native else write_mistral)(shape, part)
    elif isinstance(shape, GemmaShape):
        write_gemma(shape, part)
    elif isinstance(shape, Gemma4Shape):
        write_gemma4(shape, part)
    elif isinstance(shape, KimiShape):
        (write_kimi if shape.frames == 1 else write_kimi_k25)(shape, part)
    elif isinstance(shape, KimiK3Shape):
        write_kimi_k3(shape, part)
    elif isinstance(shape, MiniMaxShape):
        write_minimax(shape, part)
    elif isinstance(shape, Llama4Shape):
        write_llama4(shape, part)
    elif isinstance(shape, CohereShape):
        write_cohere(shape, part)
    elif isinstance(shape, MiniCPMShape):
        write_minicpm(shape, part)
    elif isinstance(shape, NemotronShape):
        write_nemotron(shape, part)
    elif isinstance(shape, Lfm2Shape):
        write_lfm2(shape, part)
    elif isinstance(shape, RelativeShape):
        write_relative(shape, part)
    elif isinstance(shape, OnevisionShape):
        write_onevision(shape, part)
    else:
        write_checkpoint(shape, part)
    (part / ".stamp").write_text(stamp)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def recipe_hash() -> str:
    folders = (HERE, HERE / "internvl", HERE / "kimi", HERE / "remote")
    files = (file for folder in folders for file in folder.iterdir())
    recipe = sorted(file for file in files if file.suffix in {".py", ".txt", ".jinja"})
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
            build(SHAPES[name], folder, stamp)
        print(f"{name}: {'up to date' if fresh else 'built'} in {folder}")


if __name__ == "__main__":
    main()
