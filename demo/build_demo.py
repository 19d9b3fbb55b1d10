"""Build the demo checkpoints from a seed: python demo/build_demo.py [--out DIR] [NAME ...]"""

import argparse
import hashlib
import shutil
from importlib import import_module
from pathlib import Path

from models import SHAPES
from shapes import AnyShape

HERE = Path(__file__).resolve().parent
DEFAULT_OUT = HERE.parent / ".cache" / "models"


def build(shape: AnyShape, folder: Path, stamp: str) -> None:
    """Write the model beside `folder`, then put it there: a folder that exists is complete."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    # This imports transformers: seconds, not needed when fresh.
    import_module(shape.writer).write(shape, part)
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
