"""Compare the syntax trees of the vLLM names that vtprune relies on, from source, without imports.

    python environment/symbol_trees.py record FOLDER VERSION    write tests/compat/vllm-VERSION.json
    python environment/symbol_trees.py compare FOLDER           differences to the installed vLLM

FOLDER contains `vllm/`: an unpacked source archive or wheel, or a checkout.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.util
import json
import sys
from functools import cache
from pathlib import Path

RECORDS = Path(__file__).parents[1] / "tests" / "compat"
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Sources:
    """The modules below one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def digest(self, module: str, name: str) -> str | None:
        """Return a digest of the definition of a name; None if there is none."""
        node = self._find(module, name.split("."))
        return None if node is None else _digest(node)

    @cache  # noqa: B019  # lives as long as the script or the test
    def _module(self, module: str) -> ast.Module | None:
        path = self._root / Path(*module.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.exists():
                return ast.parse(file.read_text())
        return None

    def _find(self, module: str, names: list[str], depth: int = 0) -> ast.AST | None:
        """Follow imports to the definition of `names[0]`, then base classes to its attribute."""
        tree = self._module(module)
        if tree is None or depth > 8:
            return None
        first, *rest = names
        for node in _statements(tree):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == first:
                        return self._imported(module, node, alias.name, rest, depth)
                    if alias.name == "*":
                        starred = self._imported(module, node, first, rest, depth)
                        if starred is not None:
                            return starred
            elif first in _bound(node):
                return self._member(module, node, rest, depth) if rest else node
        # A package may load its names lazily, from a table of strings.
        return self._lazy(module, tree, names, depth)

    def _imported(
        self, module: str, node: ast.ImportFrom, name: str, rest: list[str], depth: int
    ) -> ast.AST | None:
        origin = node.module or ""
        if node.level:
            is_package = (self._root / Path(*module.split(".")) / "__init__.py").exists()
            parts = module.split(".")
            parts = parts[: len(parts) - node.level + is_package]
            origin = ".".join([*parts, *([node.module] if node.module else [])])
        return self._find(origin, [name, *rest], depth + 1)

    def _lazy(self, module: str, tree: ast.AST, names: list[str], depth: int) -> ast.AST | None:
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == names[0]:
                        if isinstance(value, ast.Constant) and isinstance(value.value, str):
                            return self._find(f"{module}{value.value}", names, depth + 1)
                        return value
        return None

    def _member(self, module: str, owner: ast.AST, names: list[str], depth: int) -> ast.AST | None:
        if isinstance(owner, ast.Assign | ast.AnnAssign) and owner.value is not None:
            made_by = owner.value.func if isinstance(owner.value, ast.Call) else owner.value
            return self._find(module, [ast.unparse(made_by), *names], depth + 1)
        if not isinstance(owner, ast.ClassDef):
            return None
        (name,) = names
        for node in _statements(owner):
            if name in _bound(node):
                return node
        for node in ast.walk(owner):
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(ast.unparse(target) == f"self.{name}" for target in targets):
                    return node
        bases = [base.value if isinstance(base, ast.Subscript) else base for base in owner.bases]
        found = (self._find(module, [ast.unparse(base), name], depth + 1) for base in bases)
        return next((node for node in found if node is not None), None)


def _statements(owner: ast.Module | ast.ClassDef) -> list[ast.stmt]:
    """Return a body's statements, including those under `if` and `try`, last ones first."""
    flat: list[ast.stmt] = []
    waiting = list(owner.body)
    while waiting:
        node = waiting.pop(0)
        flat.append(node)
        if isinstance(node, ast.If | ast.Try):
            waiting = [*node.body, *node.orelse, *waiting]
    return flat[::-1]


def _bound(node: ast.AST) -> set[str]:
    """Return the names that a statement binds."""
    if isinstance(node, Definition):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else []
    targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _digest(node: ast.AST) -> str:
    """Return a digest of code that ignores comments, docstrings and line numbers."""
    tree = ast.parse(ast.unparse(node))
    for each in ast.walk(tree):
        if isinstance(each, Definition) and ast.get_docstring(each) is not None:
            each.body = each.body[1:] or [ast.Pass()]
    return hashlib.blake2b(ast.dump(tree).encode(), digest_size=8).hexdigest()


def digests(root: Path) -> dict[str, str | None]:
    """Return the digest of every name of `compat`'s table, by `module:name`."""
    from vllm_pruner.compat.symbols import SYMBOLS

    sources = Sources(root)
    return {str(each): sources.digest(each.module, each.name) for each in SYMBOLS}


def installed() -> Path:
    """Return the folder that holds the installed vLLM."""
    spec = importlib.util.find_spec("vllm")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=["record", "compare"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("version", nargs="?")
    arguments = parser.parse_args()
    there = digests(arguments.folder)
    if arguments.command == "record":
        file = RECORDS / f"vllm-{arguments.version}.json"
        file.write_text(json.dumps(there, indent=1, sort_keys=True) + "\n")
        return
    here = digests(installed())
    different = [name for name, digest in here.items() if there[name] != digest]
    for name in different:
        print(f"{name}: {'gone' if there[name] is None else 'changed'}")
    sys.exit(1 if any(there[name] is None for name in different) else 0)


if __name__ == "__main__":
    main()
