"""No private of vLLM is used outside `compat` without being in the table of `compat.symbols`."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache, cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
from our_packages import PACKAGES

from vllm_pruner.compat.symbols import SYMBOLS

LISTED = {part for symbol in SYMBOLS for part in symbol.name.split(".")}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources() -> dict[str, ast.Module]:
    """Every module of our packages by its dotted name."""
    trees = {}
    for package, folder in PACKAGES.items():
        for path in (folder / package).rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            trees[name] = ast.parse(path.read_text(), str(path))
    return trees


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@cache
def imports(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for: `module.name`."""
    bound = {}
    for node in nodes(tree):
        if isinstance(node, ast.ImportFrom):
            bound |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        elif isinstance(node, ast.Import):
            bound |= {a.asname or a.name.split(".")[0]: a.name for a in node.names}
    return bound


def is_vllm(path: str) -> bool:
    return path.split(".")[0] == "vllm"


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


@cache
def nodes(module: ast.Module) -> list[ast.AST]:
    """All of a module, gathered once for all tests."""
    return list(ast.walk(module))


@cache
def at_run_time(module: ast.Module) -> list[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`, where vLLM's names are declared again."""
    return list(_at_run_time(module))


def _at_run_time(tree: ast.AST) -> Iterator[ast.AST]:
    yield tree
    for child in ast.iter_child_nodes(tree):
        if only_for_types(child):
            for other in child.orelse:
                yield from _at_run_time(other)
        else:
            yield from _at_run_time(child)


class Checkout:
    """Our modules, and what in them is vLLM's."""

    def __init__(self, trees: dict[str, ast.Module]) -> None:
        self.trees = trees
        self.bound = {name: imports(tree) for name, tree in trees.items()}

    @cached_property
    def own(self) -> set[str]:
        """Names that any of our classes or modules defines or assigns."""
        names = set[str]()
        for tree in self.trees.values():
            for node in at_run_time(tree):
                if isinstance(node, Function | ast.ClassDef):
                    names.add(node.name)
                elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.add(node.id)
                elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                    names.add(node.attr)
        return names

    def faults(self) -> list[str]:
        """One line for every private or overridden name of vLLM that is not in the table."""
        return [
            f"{module}: {private} ({where})"
            for module, tree in self.trees.items()
            if not module.startswith("vllm_pruner.compat")
            for private, where in (
                *self._imported(module),
                *self._touched(tree, self._from_vllm(module, tree)),
                *self._inherited(tree),
                *self._overridden(tree),
            )
            if private not in LISTED
        ]

    def _imported(self, module: str) -> Iterator[tuple[str, str]]:
        for path in self.bound[module].values():
            if is_vllm(path):
                yield from ((part, path) for part in path.split(".") if is_private(part))

    def _from_vllm(self, module: str, tree: ast.Module) -> set[str]:
        """Names that hold something of vLLM's: imported, annotated with it, or assigned from it."""
        names = {name for name, path in self.bound[module].items() if is_vllm(path)}
        for _ in range(3):  # as many assignments after each other
            for node in nodes(tree):
                if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
                    if names & named(node.annotation):
                        names.add(node.arg if isinstance(node, ast.arg) else root(node.target))
                elif isinstance(node, ast.Assign) and root(node.value) in names:
                    names |= {root(target) for target in node.targets}
        return names - {"", "self", "cls"}

    def _touched(self, tree: ast.Module, names: set[str]) -> Iterator[tuple[str, str]]:
        for node in nodes(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                if root(node.value) in names:
                    yield node.attr, ast.unparse(node)
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr"):
                name = node.args[1].value if isinstance(node.args[1], ast.Constant) else ""
                if is_private(str(name)) and root(node.args[0]) in names:
                    yield str(name), ast.unparse(node)

    def _inherited(self, tree: ast.Module) -> Iterator[tuple[str, str]]:
        """Of `super()`, always; of `self`, what none of our classes defines."""
        for node in nodes(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                owner = ast.unparse(node.value)
                own = node.attr in self.own and not (
                    owner == "super()" and any(hasattr(base, node.attr) for base in self.bases)
                )
                if owner in ("self", "cls", "super()") and not own:
                    yield node.attr, ast.unparse(node)

    @cached_property
    def bases(self) -> list[Any]:
        """vLLM's classes that ours derive from, directly or by an alias for the type checker."""
        paths = set[str]()
        for module, tree in self.trees.items():
            for node in nodes(tree):
                values = node.bases if isinstance(node, ast.ClassDef) else []
                values = [node.value] if isinstance(node, ast.Assign) else values
                names = {name for value in values for name in bare_names(value)}
                paths |= {self.bound[module].get(name, "") for name in names}
        split = [path.rpartition(".") for path in paths if is_vllm(path)]
        here = [(module, name) for module, _, name in split if find_spec(module)]  # not in 0.31
        values = [getattr(import_module(module), name, None) for module, name in here]
        return [value for value in values if inspect.isclass(value)]

    def _overridden(self, tree: ast.Module) -> Iterator[tuple[str, str]]:
        """Methods of ours that replace vLLM's, public ones too."""
        for owner in at_run_time(tree):
            if not isinstance(owner, ast.ClassDef) or not owner.bases:
                continue
            names = {node.name for node in owner.body if isinstance(node, Function)}
            for name in names - {"__init__"}:
                if any(defines(base, name) for base in self.bases):
                    yield name, f"{owner.name}.{name}"


def defines(base: type, name: str) -> bool:
    """Whether vLLM itself defines a method of a class, as opposed to torch, or to `dataclass`."""
    owners = [each for each in base.__mro__ if name in vars(each)]
    return bool(owners) and is_vllm(owners[0].__module__) and is_written(vars(owners[0])[name])


def is_written(method: Any) -> bool:
    """Whether a method has a source: `dataclass` makes `__hash__` and others from text."""
    code = getattr(inspect.unwrap(method), "__code__", None) if callable(method) else None
    return code is None or code.co_filename != "<string>"


def root(node: ast.AST) -> str:
    """`a` of `a.b(c).d[e]`, empty if there is none."""
    while isinstance(node, ast.Attribute | ast.Call | ast.Subscript | ast.Await):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def named(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def bare_names(node: ast.AST) -> set[str]:
    """`A` of `A` and of `A[B]`."""
    node = node.value if isinstance(node, ast.Subscript) else node
    return {node.id} if isinstance(node, ast.Name) else set()


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return sources()


def test_every_private_is_in_the_table(trees: dict[str, ast.Module]) -> None:
    assert Checkout(trees).faults() == []


def test_every_line_of_the_table_has_its_user(trees: dict[str, ast.Module]) -> None:
    """A name whose use is gone leaves the table too."""
    text = {name: ast.unparse(tree) for name, tree in trees.items()}
    for symbol in SYMBOLS:
        parts = [text[name] for name in text if f"{name}.".startswith(f"{symbol.user}.")]
        word = re.compile(rf"\b{symbol.name.split('.')[-1]}\b")
        assert any(word.search(part) for part in parts), symbol


_ITEMS, _CLASS = "vllm_pruner.prompt.image_items", "class P(PlannedItems):\n    def "
PLANTED = [
    ("vllm_pruner.plugin", "from vllm.engine import _private as p", "_private"),
    ("vllm_pruner.plugin", "def f():\n    from vllm._custom_ops import x", "_custom_ops"),
    ("vllm_pruner.plan", "import vllm\nvllm.v1._core.thing", "_core"),
    ("vllm_pruner.plan", "from vllm.config import V\nV.get()._hidden = 1", "_hidden"),
    ("vllm_pruner.plan", "from vllm.config import V\nv = V.get()\nw = v.a\nw._hidden", "_hidden"),
    ("vllm_pruner.plan", "from vllm.config import V\ndef f(v: V | None): v._hidden", "_hidden"),
    ("vllm_pruner.plan", "from vllm import config\ngetattr(config, '_hidden')", "_hidden"),
    ("vtprune_server.surface", "from vllm.config import V\nV._hidden", "_hidden"),
    (_ITEMS, f"{_CLASS}f(self): return self._get_data_parser()", "_get_data_parser"),
    (_ITEMS, f"{_CLASS}f(self): return super()._apply_prompt_updates()", "_apply_prompt_updates"),
    (_ITEMS, f"{_CLASS}_apply_prompt_updates(self): ...", "_apply_prompt_updates"),
    (
        "vllm_pruner.families.llava",
        "class M(PrunedLlava):\n    def _process_image_pixels(self): ...",
        "_process_image_pixels",
    ),
]


@pytest.mark.parametrize("module, line, private", PLANTED, ids=[line for _, line, _ in PLANTED])
def test_a_planted_private_is_seen(
    trees: dict[str, ast.Module], module: str, line: str, private: str
) -> None:
    tree = ast.parse(f"{ast.unparse(trees[module])}\n{line}\n")
    (fault,) = {each.split(" (")[0] for each in Checkout({**trees, module: tree}).faults()}
    assert fault == f"{module}: {private}"
