"""Imports point down only, as pyproject.toml's contracts say; the environment is read once; and the
largest folders say what is in them."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from our_packages import PACKAGES, ROOT


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts on the packages of a checkout."""
    folders = [root / folder.relative_to(ROOT) for folder in PACKAGES.values()]
    lint_imports = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [lint_imports, "--no-cache", "--config", ROOT / "pyproject.toml"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
        cwd=root,
    )


def test_the_contracts_are_kept() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages, to plant faults in."""
    root = tmp_path_factory.mktemp("checkout")
    for package, folder in PACKAGES.items():
        target = root / folder.relative_to(ROOT) / package
        shutil.copytree(folder / package, target, ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.mark.parametrize(
    "path, line, broken",
    [
        ("vllm_pruner/methods/uniform.py", "import vllm_pruner.settings.config", "methods.uniform"),
        ("vllm_pruner/methods/uniform.py", "def f():\n    import vllm.envs", "methods.uniform"),
        ("vllm_pruner/prompt/chat.py", "import vllm_pruner.worker.tower", "prompt.chat"),
        ("vllm_pruner/worker/explain.py", "import vllm_pruner.worker.model", "explain"),
        ("vllm_pruner/prompt/info.py", "import vllm_pruner.families.llava", "families"),
        ("vllm_pruner/settings/errors.py", "import vllm_pruner.settings.config", "errors"),
        ("vllm_pruner/settings/config.py", "import torch", "settings.config -> torch"),
        ("kernels/vtprune_kernels/dedup.py", "import vllm_pruner.envs", "dedup -> vllm_pruner"),
        ("server/vtprune_server/__init__.py", "import vllm_pruner.compat", "vllm_pruner.compat"),
    ],
)
def test_a_planted_import_breaks_a_contract(copy: Path, path: str, line: str, broken: str) -> None:
    planted = copy / path
    before = planted.read_text()
    planted.write_text(f"{before}\n{line}\n")
    try:
        done = lint(copy)
    finally:
        planted.write_text(before)
    assert done.returncode == 1
    assert broken in done.stdout


def environment_reads(tree: ast.AST) -> list[int]:
    """Lines that read the environment."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    ]


def test_the_environment_is_read_in_one_place() -> None:
    """The operators know nothing of `envs` and may ask Triton's own variables; commands of a client
    have an address and a key."""
    readers = {
        str(path.relative_to(ROOT))
        for package in ("vllm_pruner", "vtprune_server", "vtprune_evaluate")
        for path in (PACKAGES[package] / package).rglob("*.py")
        if environment_reads(ast.parse(path.read_text()))
    }
    clients = {"evaluate/vtprune_evaluate/__main__.py", "server/vtprune_server/command/parser.py"}
    assert readers == {"vllm_pruner/envs.py"} | clients


@pytest.mark.parametrize("folder", ["worker", "layout", "compat"])
def test_a_folder_of_many_modules_begins_with_a_map_of_them(folder: str) -> None:
    root = ROOT / "vllm_pruner" / folder
    map_of = ast.get_docstring(ast.parse((root / "__init__.py").read_text())) or ""
    named = re.findall(r"`(\w+)`", map_of)
    modules = {path.stem for path in root.glob("*.py")} - {"__init__"}
    assert modules <= set(named), f"not in the docstring of {folder}: {modules - set(named)}"
