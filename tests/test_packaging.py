"""The wheel, built from a copy of the checkout and installed where nothing else is."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from email import message_from_string
from pathlib import Path

import pytest
from our_packages import PACKAGES, ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION = PROJECT["version"]
"""What is built here; an editable install may be older until `make setup`."""

MOST_BYTES = 1_000_000
NEEDED_BY_SETTINGS = ["pydantic", "pydantic_core", "annotated_types", "typing_inspection"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built offline. From a copy, because setuptools packs what an earlier build left behind."""
    checkout, dist = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    ignore = shutil.ignore_patterns(
        ".*", "__pycache__", "*.egg-info", "build", "dist", "results", "cache"
    )
    for name in (
        "vllm_pruner",
        "kernels",
        "server",
        "evaluate",
        "tests",
        "benchmarks",
        "loadtests",
        "docker",
    ):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, checkout / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", dist, checkout)
    (built,) = dist.iterdir()
    return built


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass(frozen=True, slots=True)
class CleanVenv:
    """A virtual environment with the wheel in it and nothing besides."""

    python: Path
    site: Path
    dependencies: Path
    """A folder with links to pydantic and what it needs, for `PYTHONPATH`."""

    def run(self, program: str, pythonpath: str = "") -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        done = subprocess.run(
            [self.python, "-c", program],
            cwd=self.site.parent,
            env=environment | {"PYTHONPATH": pythonpath},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> CleanVenv:
    home = tmp_path_factory.mktemp("clean")
    venv.create(home / "venv", symlinks=True)
    python = home / "venv" / "bin" / "python"
    pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    (site,) = (home / "venv" / "lib").glob("python*/site-packages")
    dependencies = home / "dependencies"
    dependencies.mkdir()
    for name in [*NEEDED_BY_SETTINGS, "typing_extensions"]:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        origin = Path(spec.origin)
        target = origin.parent if origin.name == "__init__.py" else origin
        (dependencies / target.name).symlink_to(target)
    return CleanVenv(python, site, dependencies)


def test_the_wheel_holds_every_module_of_the_four_packages_and_nothing_else(wheel) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(folder))
        for package, folder in PACKAGES.items()
        for pattern in (
            "*.py",
            "py.typed",
            "playground/*.*",
            "playground/photos/*.*",
            "command/plan/*.json",
        )
        for path in (folder / package).rglob(pattern)
    }
    assert packed == expected
    assert {f"{package}/py.typed" for package in PACKAGES} <= packed


def test_the_wheel_is_for_every_platform_and_carries_its_licence(wheel) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        (licence,) = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()


def test_the_metadata_is_fit_for_an_index(wheel) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = message_from_string(archive.read(name).decode())
    assert metadata["Name"] == "vtprune"
    assert metadata["Version"] == VERSION
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().strip() == (ROOT / "README.md").read_text().strip()
    required = {line for line in metadata.get_all("Requires-Dist") if "extra" not in line}
    names = {line.split("<")[0].split(">")[0] for line in required}
    expected = {"vllm", "pydantic", "simplejpeg"}
    assert names == expected, "few dependencies, none that only a GPU needs"
    (vllm,) = [line for line in required if line.startswith("vllm")]
    assert vllm == "vllm>=0.31", "a newer vLLM is let through the canary, not refused by pip"


def test_the_installed_top_level_names_are_ours_alone(installed) -> None:
    names = {path.name for path in installed.site.iterdir() if ".dist-info" not in path.name}
    assert names - {"__pycache__"} == set(PACKAGES)


def test_a_clean_venv_imports_the_package_without_any_dependency(installed) -> None:
    version = installed.run("import vllm_pruner; print(vllm_pruner.__version__)")
    assert version == VERSION
    where = installed.run("import vllm_pruner; print(vllm_pruner.__file__)")
    assert Path(where).is_relative_to(installed.site)


def test_a_clean_venv_counts_tokens_with_pydantic_alone(installed) -> None:
    """The count for a prompt needs no torch; only looking up the built-in methods does."""
    program = (
        "from vllm_pruner.settings.defaults import DEFAULT_RATE\n"
        "from vllm_pruner.methods.budget import Budget, keep_count\n"
        "print(keep_count(576, Budget(rate=DEFAULT_RATE)))"
    )
    assert installed.run(program, str(installed.dependencies)) == "64"


def test_the_entry_point_is_found_under_the_one_name(installed) -> None:
    program = (
        "import importlib.metadata as m, json\n"
        "found = m.distribution('vtprune').entry_points\n"
        "print(json.dumps({e.group: [e.name, e.value] for e in found}))"
    )
    groups = json.loads(installed.run(program))
    assert groups["vllm.general_plugins"] == ["vtprune", "vllm_pruner.plugin:register"]
    of_vllm = {group: name for group, (name, _) in groups.items() if group.startswith("vllm.")}
    assert set(of_vllm) <= {"vllm.general_plugins", "vllm.endpoint_plugins"}
    assert set(of_vllm.values()) == {"vtprune"}
    ours = {"console_scripts", "vtprune.methods", "vtprune.video_methods", "lmms_eval.models"}
    assert set(groups) - set(of_vllm) == ours


def test_the_command_is_there_with_nothing_but_the_wheel(installed) -> None:
    command = [installed.python.with_name("vtprune"), "methods"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 0, done.stderr
    assert "vispruner" in done.stdout


def test_the_wheel_is_small(wheel) -> None:
    assert wheel.stat().st_size < MOST_BYTES


def test_the_version_is_the_newest_section_of_the_changelog() -> None:
    heads = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line[:3] == "## "]
    assert heads[0].split()[1] == VERSION


def test_the_licence_is_said_once() -> None:
    assert not [each for each in PROJECT["classifiers"] if each.startswith("License")]


@pytest.fixture(scope="module")
def beside_vllm(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment that has vLLM, what that requires, and the wheel."""
    home = tmp_path_factory.mktemp("beside") / "venv"
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    (site,) = (home / "lib").glob("python*/site-packages")
    brought = _required_by("vllm")
    assert not {"vtprune", "matplotlib", "pytest"} & brought
    here = Path(importlib.metadata.distribution("vllm")._path).parent
    for name in brought:
        for file in importlib.metadata.distribution(name).files or ():
            first = file.parts[0]
            if first not in ("..", "bin") and not (site / first).exists():
                (site / first).symlink_to(here / first)
    # Not what vLLM requires: torchaudio is left out of an environment that serves images alone.
    pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    return python


def test_what_the_wheel_requires_vllm_brings_but_for_a_decoder_that_may_be_missing() -> None:
    brought = _required_by("vllm")
    required = {each.name: each for each in map(Requirement, PROJECT["dependencies"])}
    assert required.keys() - brought == {"simplejpeg"}
    for name, each in required.items():
        assert importlib.metadata.version(name) in each.specifier


def _required_by(name: str) -> set[str]:
    """The installed packages that one requires, itself among them."""
    seen: set[tuple[str, frozenset[str]]] = set()
    found, waiting = set(), [(name, frozenset[str]())]
    while waiting:
        name, extras = asked = waiting.pop()
        if asked in seen:
            continue
        seen.add(asked)
        try:
            requires = importlib.metadata.distribution(name).requires or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform, or left out where only images are served
        found.add(name)
        for each in map(Requirement, requires):
            marker = each.marker
            if not marker or any(marker.evaluate({"extra": e}) for e in extras | {""}):
                waiting.append((canonicalize_name(each.name), frozenset(each.extras)))
    return found


def test_vllm_brings_all_that_serving_and_evaluating_import(beside_vllm: Path) -> None:
    """Every module, but the plots of the extra `evaluate`, asked for when one is drawn, and
    the model that lmms-eval loads."""
    program = (
        "import importlib, pkgutil, sys\n"
        "def broken(name): raise sys.exc_info()[1]\n"
        f"for top in {sorted(PACKAGES)!r}:\n"
        "    package = importlib.import_module(top)\n"
        "    for each in pkgutil.walk_packages(package.__path__, top + '.', broken):\n"
        "        if each.name.endswith(('__main__', '.plot', '_triton', '.replay')): continue\n"
        "        if each.name == 'vtprune_evaluate.lmms.model': continue\n"
        "        importlib.import_module(each.name)\n"
        "print(importlib.metadata.version('vtprune'), package.__file__)\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [beside_vllm, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    version, where = done.stdout.strip().splitlines()[-1].split()
    assert version == VERSION
    assert Path(where).is_relative_to(beside_vllm.parents[1])


@pytest.mark.parametrize("folder", ["kernels", "server"])
def test_a_component_folder_is_no_package(folder) -> None:
    """`kernels` is the import name of a Hugging Face package; ours must never answer to it."""
    assert not (ROOT / folder / "__init__.py").exists()
    assert not list((ROOT / folder).glob("*.py"))


def test_from_the_checkout_the_name_kernels_finds_no_package_of_ours() -> None:
    program = "import importlib.util as u; s = u.find_spec('kernels'); print(s and s.origin)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not done.stdout.strip().startswith(str(ROOT / "kernels"))
