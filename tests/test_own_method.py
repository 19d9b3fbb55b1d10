"""`examples/own_method.py`, installed as its header says, and served."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from installed_package import install_package
from media import photo_question
from python_path import path_with
from vllm_server import Server

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "own_method.py"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the package was built and installed, from the header's own words."""
    source, target = tmp_path_factory.mktemp("my-methods"), tmp_path_factory.mktemp("site")
    header = EXAMPLE.read_text().split('"""')[1]
    project = header[header.index("    [build-system]") : header.index("After `pip install")]
    (source / "pyproject.toml").write_text(dedent(project))
    (source / "own_method.py").write_text(EXAMPLE.read_text())
    install_package(source, target)
    return target


def test_the_page_shows_the_example() -> None:
    page = (ROOT / "docs" / "add-a-method.md").read_text()
    header, code = EXAMPLE.read_text().split('"""')[1:], EXAMPLE.read_text().split('"""', 2)[2]
    assert f"```python\n{code.lstrip()}```" in page
    project = header[0][header[0].index("    [build-system]") : header[0].index("After `pip")]
    assert f"```toml\n{dedent(project).strip()}\n```" in page


@pytest.mark.slow
def test_the_installed_method_selects(site: Path) -> None:
    program = """if True:
        import json, torch, vllm_pruner
        from vllm_pruner import methods
        kept = vllm_pruner.select("fovea", keep=4, features=torch.zeros(2, 36, 1), grid=(6, 6))
        left = vllm_pruner.select(
            "fovea", keep=3, features=torch.zeros(36, 1), grid=(6, 6), x=0.0, y=0.0
        )
        print(json.dumps([methods.names(), kept.tolist(), left.tolist()]))
    """
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path_with(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    names, kept, left = json.loads(done.stdout)
    assert "fovea" in names
    assert kept == [[14, 15, 20, 21]] * 2
    assert left == [0, 1, 6]


@pytest.mark.server
def test_the_installed_method_is_served(site: Path, tmp_path: Path) -> None:
    path = path_with(site, ROOT / "tests" / "server")
    arguments = ["--plugin", "vtprune", "--enforce-eager", "--prune-tokens", "36"]
    arguments += ["--prune-method", "fovea"]
    with Server(tmp_path / "own.log", *arguments, PYTHONPATH=path) as server:
        server.rpc("start_probe")
        middle = server.text(photo_question(0))
        corner = server.text(photo_question(0), vtprune={"options": {"x": 0.0, "y": 0.0}})
        (record,) = server.rpc("read_probe")
    assert middle != corner
    rows = [{token // 24 for token in kept} for kept in record["kept"]]
    columns = [{token % 24 for token in kept} for kept in record["kept"]]
    assert [len(kept) for kept in record["kept"]] == [36, 36]
    assert rows[0] | columns[0] <= set(range(8, 16)), "around the middle"
    assert {0, 1, 2} <= rows[1] & columns[1] and rows[1] | columns[1] <= set(range(9)), "the corner"
