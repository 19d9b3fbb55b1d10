"""The installed pruning methods, by name.

Every method is an entry point, the built-in ones included, so that a third-party method is found in
the same way. Importing this module loads none of them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from vllm_pruner.methods.base import ALLOWED, Method

__all__ = [
    "GROUP",
    "VIDEO_GROUP",
    "built_in",
    "check_installed",
    "compares_frames",
    "get",
    "names",
    "package_of",
]

GROUP = "vtprune.methods"
"""Entry points `name = module:VALUE` of methods for images; each value is a `Method` so named."""

VIDEO_GROUP = "vtprune.video_methods"
"""The same for methods that compare the frames of a video. No method may be in both groups."""

_OURS = f"{__name__}."


def get(name: str, group: str | None = None) -> Method:
    """Return the method called `name`, from `group` if given, else from either group.

    Raises:
        ValueError: no such method is installed (the message lists those that are), or its package
            is broken.
    """
    group = _group_of(name) if group is None else group
    if name not in _installed(group):
        raise ValueError(f"method is {name!r}; allowed: {', '.join(names(group))}")
    return _load(name, group)


def names(group: str = GROUP) -> list[str]:
    """Return the names of all installed methods, sorted. Loads none of them."""
    return sorted(_installed(group))


def built_in(group: str = GROUP) -> list[str]:
    """Return the names of the methods that this package provides, sorted."""
    return [name for name in names(group) if package_of(name, group) is None]


def compares_frames(name: str) -> bool:
    """Return whether an installed method is a video method, which sees all frames at once."""
    return _group_of(name) == VIDEO_GROUP


def _group_of(name: str) -> str:
    return VIDEO_GROUP if name in _installed(VIDEO_GROUP) else GROUP


@cache
def package_of(name: str, group: str | None = None) -> str | None:
    """Return the package that provides an installed method, or None if this one does.

    Only methods of other packages are checked at run time; our tests check the built-in ones.
    """
    group = _group_of(name) if group is None else group
    foreign = [each for each in _installed(group)[name] if not each.module.startswith(_OURS)]
    return _package(foreign[0]) if foreign else None


def check_installed() -> None:
    """Load every installed method.

    Raises:
        ValueError: a method cannot be used; the message names it, its package and the reason.
    """
    for group in (GROUP, VIDEO_GROUP):
        for name in names(group):
            _load(name, group)
    for name in _installed(GROUP).keys() & _installed(VIDEO_GROUP).keys():
        raise ValueError(f"method {name!r} is in {GROUP!r} and in {VIDEO_GROUP!r}; allowed: one")


@cache
def _installed(group: str) -> dict[str, list[EntryPoint]]:
    found = defaultdict(list)
    for entry in entry_points(group=group):
        found[entry.name].append(entry)
    return dict(found)


@cache
def _load(name: str, group: str) -> Method:
    entry, *others = _installed(group)[name]
    if others:
        packages = ", ".join(sorted(_package(each) for each in (entry, *others)))
        raise ValueError(f"method {name!r} is in several packages: {packages}; allowed: one")
    try:
        method = entry.load()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise _broken(entry, f"cannot be loaded from {entry.value!r} ({reason})") from error
    if not isinstance(method, Method):
        raise _broken(entry, f"is {type(method).__name__} at {entry.value!r}; allowed: a Method")
    if method.name != name:
        raise _broken(entry, f"calls itself {method.name!r}; allowed: the entry point's name")
    if unknown := set(method.needs) - set(ALLOWED):
        asked = ", ".join(map(repr, sorted(unknown)))
        raise _broken(entry, f"needs {asked}; allowed: {', '.join(ALLOWED)}")
    if not isinstance(method.needs, frozenset):  # workers use its set operations
        return replace(method, needs=frozenset(method.needs))
    return method


def _broken(entry: EntryPoint, fault: str) -> ValueError:
    return ValueError(f"method {entry.name!r} of package {_package(entry)} {fault}")


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "unknown"
