"""Imports point down only, vLLM stays above the methods, and its privates inside `compat`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import vllm_pruner

ROOT = Path(vllm_pruner.__file__).parents[1]

LAYERS = [
    {"vtprune_kernels"},
    {
        "vllm_pruner.budget",
        "vllm_pruner.config",
        "vllm_pruner.detail",
        "vllm_pruner.envs",
        "vllm_pruner.ledger",
        "vllm_pruner.limits",
        "vllm_pruner.merge",
        "vllm_pruner.method",
        "vllm_pruner.metrics",
        "vllm_pruner.request",
    },
    {"vllm_pruner.methods"},
    {
        "vllm_pruner",
        "vllm_pruner.cli",
        "vllm_pruner.compat",
        "vllm_pruner.refusal",
        "vllm_pruner.selection",
    },
    {"vllm_pruner.models"},
    {"vllm_pruner.chat", "vllm_pruner.plugin"},
    {"vtprune_server", "vllm_pruner.evaluate"},
]
"""From the bottom up. A module belongs to the longest of these names that begins its own."""

SERVER_MAY = {
    "vllm_pruner",
    "vllm_pruner.config",
    "vllm_pruner.envs",
    "vllm_pruner.method",
    "vllm_pruner.request",
}
"""What the HTTP server may know of the plugin, so that it cannot grow engine logic."""

NEVER = {
    "vtprune_kernels": {"vllm", "vllm_pruner", "vtprune_server", "transformers", "pydantic"},
    "vllm_pruner.budget": {"vllm", "torch", "pydantic"},
    "vllm_pruner.config": {"vllm", "torch"},
    "vllm_pruner.detail": {"vllm", "torch"},
    "vllm_pruner.envs": {"vllm", "torch", "pydantic"},
    "vllm_pruner.ledger": {"vllm", "torch", "pydantic"},
    "vllm_pruner.limits": {"vllm", "torch"},
    "vllm_pruner.merge": {"vllm", "transformers", "pydantic"},
    "vllm_pruner.method": {"vllm"},
    "vllm_pruner.request": {"vllm", "torch"},
    "vllm_pruner.methods": {"vllm", "transformers"},
    "vllm_pruner.metrics": {"vllm", "torch"},
    "vllm_pruner.selection": {"vllm", "transformers"},
    "vllm_pruner.cli": {"vllm", "torch"},
    "vllm_pruner.evaluate": {"vllm", "torch", "transformers"},
    "vtprune_server": {"torch", "triton", "vtprune_kernels"},
}
"""What a layer may not import, not even for its annotations."""


def sources(root: Path) -> dict[str, ast.Module]:
    """Every module below the three import roots of a checkout, by its dotted name."""
    found = {}
    for folder, package in (
        (root, "vllm_pruner"),
        (root / "kernels", "vtprune_kernels"),
        (root / "server", "vtprune_server"),
    ):
        for path in sorted((folder / package).rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(), str(path))
    return found


class Import(NamedTuple):
    """One name that an import binds."""

    module: str
    """What is loaded: for `from package import name`, `package.name` where that is one of ours."""

    path: str
    """All that is named, `package.name`."""

    bound: str
    """The name it goes by afterwards."""


def imports(tree: ast.AST, modules: dict[str, ast.Module]) -> Iterator[Import]:
    """Every import of a tree, at its top or inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.split(".")[0]
                yield Import(alias.name, alias.name, bound)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                path = f"{node.module}.{alias.name}"
                module = path if path in modules else str(node.module)
                yield Import(module, path, alias.asname or alias.name)


def begins(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def rank(module: str) -> int | None:
    """The layer of a module of ours, None for any other."""
    owners = [
        (len(name), layer)
        for layer, names in enumerate(LAYERS)
        for name in names
        if begins(module, name)
    ]
    return max(owners)[1] if owners else None


def faults(root: Path) -> list[str]:
    """One line for every rule that a checkout breaks."""
    modules, found = sources(root), []
    for name, tree in modules.items():
        below = rank(name)
        assert below is not None, f"{name} belongs to no layer"
        from_vllm = set()
        for imported, path, bound in imports(tree, modules):
            above = rank(imported)
            if above is not None and above > below:
                found.append(f"{name} imports {imported}, which is above it")
            if (
                begins(name, "vtprune_server")
                and begins(imported, "vllm_pruner")
                and imported not in SERVER_MAY
            ):
                found.append(f"{name} imports {imported}, which is not the server's business")
            for prefix, banned in NEVER.items():
                if begins(name, prefix) and imported.split(".")[0] in banned:
                    found.append(f"{name} imports {imported}")
            if begins(imported, "vllm"):
                from_vllm.add(bound)
                if "._" in path and name != "vllm_pruner.compat":
                    found.append(f"{name} imports the private {path}")
        found += private_uses(name, tree, from_vllm)
        found += environment_uses(name, tree)
    return found


def private_uses(name: str, tree: ast.AST, from_vllm: set[str]) -> list[str]:
    """Attributes with an underscore of names that were imported from vLLM."""
    if name == "vllm_pruner.compat":
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr[:1] == "_" and node.attr[:2] != "__":
            owner: ast.AST = node.value
            while isinstance(owner, ast.Attribute | ast.Call):
                owner = owner.value if isinstance(owner, ast.Attribute) else owner.func
            if isinstance(owner, ast.Name) and owner.id in from_vllm:
                found.append(f"{name} touches the private {ast.unparse(node)}")
    return found


def environment_uses(name: str, tree: ast.AST) -> list[str]:
    """Reading the environment outside `envs`. The operators know nothing of it and may ask Triton's
    own variables."""
    if name == "vllm_pruner.envs" or begins(name, "vtprune_kernels"):
        return []
    return [
        f"{name} reads the environment"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    ]


def test_the_checkout_breaks_no_rule() -> None:
    assert faults(ROOT) == []


def test_the_checker_sees_every_module_and_the_imports_inside_functions() -> None:
    """An empty list of faults means something only if there was something to find."""
    modules = sources(ROOT)
    assert {
        "vllm_pruner",
        "vllm_pruner.methods.vispruner",
        "vllm_pruner.models.llava",
        "vtprune_kernels.dedup",
        "vtprune_server",
    } <= set(modules)
    name, imported = "vllm_pruner", "vllm_pruner.selection"
    assert imported in {each.module for each in imports(modules[name], modules)}
    at_top = [n for n in modules[name].body if isinstance(n, ast.Import | ast.ImportFrom)]
    top = ast.Module(at_top, type_ignores=[])
    assert imported not in {each.module for each in imports(top, modules)}


PLANTED = [
    ("vllm_pruner/budget.py", "import vllm_pruner.methods.vispruner", "which is above it"),
    ("vllm_pruner/method.py", "from vllm_pruner import config, plugin", "which is above it"),
    (
        "vllm_pruner/methods/uniform.py",
        "from vllm_pruner.models import llava",
        "vllm_pruner.methods.uniform imports vllm_pruner.models.llava, which is above it",
    ),
    (
        "vllm_pruner/methods/uniform.py",
        "def late():\n    from vllm_pruner.plugin import register",
        "vllm_pruner.methods.uniform imports vllm_pruner.plugin, which is above it",
    ),
    ("kernels/vtprune_kernels/dedup.py", "import vllm_pruner", "which is above it"),
    ("kernels/vtprune_kernels/dedup.py", "from vllm.triton_utils import tl", "imports vllm"),
    ("vllm_pruner/methods/uniform.py", "import vllm.envs as e", "uniform imports vllm.envs"),
    ("vllm_pruner/config.py", "import torch", "vllm_pruner.config imports torch"),
    ("vllm_pruner/envs.py", "from vllm import envs", "vllm_pruner.envs imports vllm"),
    (
        "server/vtprune_server/__init__.py",
        "from vllm_pruner import compat",
        "vtprune_server imports vllm_pruner.compat, which is not the server's business",
    ),
    ("server/vtprune_server/__init__.py", "import torch", "vtprune_server imports torch"),
    (
        "vllm_pruner/models/llava.py",
        "from vllm.config import VllmConfig\nVllmConfig.get()._hidden = 1",
        "touches the private VllmConfig.get()._hidden",
    ),
    (
        "vllm_pruner/models/llava.py",
        "import vllm\nvllm.v1._core.thing",
        "touches the private vllm.v1._core",
    ),
    (
        "vllm_pruner/plugin.py",
        "from vllm.engine import _private as p",
        "imports the private",
    ),
    ("vllm_pruner/plugin.py", "from vllm._custom_ops import x", "imports the private"),
    ("vllm_pruner/cli.py", "import os\nos.environ['A']", "vllm_pruner.cli reads the environment"),
]


@pytest.mark.parametrize("path, line, fault", PLANTED, ids=lambda value: str(value).split("\n")[-1])
def test_a_planted_fault_is_found(tmp_path, path, line, fault) -> None:
    for module, tree in sources(ROOT).items():
        folder = {"vtprune_kernels": "kernels", "vtprune_server": "server"}
        source = Path(folder.get(module.split(".")[0], ""), *module.split("."))
        is_package = (ROOT / source).is_dir()
        copy = tmp_path / (source / "__init__.py" if is_package else source.with_suffix(".py"))
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(ast.unparse(tree))
    planted, before = tmp_path / path, faults(tmp_path)
    planted.write_text(f"{planted.read_text()}\n{line}\n")
    assert any(fault in found for found in faults(tmp_path) if found not in before)
