"""What `import vllm_pruner` gives, and what it costs."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
import vtprune_kernels

import vllm_pruner
from vllm_pruner import offline

ROOT = Path(vllm_pruner.__file__).parents[1]
MODULES = sorted(
    path
    for package in (
        "vllm_pruner",
        "kernels/vtprune_kernels",
        "server/vtprune_server",
        "evaluate/vtprune_evaluate",
    )
    for path in (ROOT / package).rglob("*.py")
)


def modules_loaded_by(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_the_package_loads_neither_torch_nor_vllm_nor_pydantic() -> None:
    loaded = modules_loaded_by("import vllm_pruner; assert 'select' in dir(vllm_pruner)")
    assert "vllm_pruner" in loaded
    assert not loaded & {"torch", "vllm", "pydantic", "numpy", "triton", "transformers"}


def test_settings_and_counts_need_no_torch() -> None:
    """vLLM's API server counts tokens for every request, without a device."""
    loaded = modules_loaded_by(
        "import vllm_pruner.methods, vllm_pruner.envs, vllm_pruner.settings.config"
    )
    assert not loaded & {"torch", "vllm", "triton", "transformers"}


def test_selecting_needs_no_vllm() -> None:
    loaded = modules_loaded_by(
        "import torch, vllm_pruner\n"
        "f, a = torch.rand(20, 8), torch.rand(20)\n"
        "assert vllm_pruner.select('vispruner', keep=5, features=f, importance=a).shape == (5,)"
    )
    assert not loaded & {"vllm", "transformers"}


def test_the_version_is_the_distributions() -> None:
    assert vllm_pruner.__version__ == importlib.metadata.version("vtprune")


def test_the_public_names_are() -> None:
    assert vllm_pruner.__all__ == ["__version__", "prune", "select", "select_video"]
    assert {
        "cls_importance",
        "column_importance",
        "cosine_gram",
        "dedup",
        "gather_rows",
        "top_k_sorted",
    } <= set(vtprune_kernels.__all__)


def test_select_at_the_door_is_select_inside() -> None:
    for name in offline.__all__:
        outside, inside = getattr(vllm_pruner, name), getattr(offline, name)
        assert outside is inside


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_is_and_exports_what_it_has(path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "a module docstring, always"
    names = (
        {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        | {getattr(node, "name", None) for node in tree.body}
        | {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
    )
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            assert set(ast.literal_eval(node.value)) <= names
