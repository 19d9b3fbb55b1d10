"""`docs/add-a-family.md`, followed to the letter: built, installed, served."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from installed_package import install_package
from media import photo_question
from python_path import path_with
from vllm_process import MODELS
from vllm_server import Server

pytestmark = pytest.mark.server

PAGE = (Path(__file__).parents[2] / "docs" / "add-a-family.md").read_text()


def _block(language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(block)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the page's package was built and installed."""
    source, target = tmp_path_factory.mktemp("fern"), tmp_path_factory.mktemp("site")
    (source / "pyproject.toml").write_text(_block("toml"))
    (source / "fern.py").write_text(_block("python"))
    install_package(source, target)
    return target


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo model under the toy's name."""
    folder = tmp_path_factory.mktemp("models") / "fern"
    shutil.copytree(MODELS / "demo", folder)
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["FernForConditionalGeneration"]
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_a_family_from_elsewhere_is_served_with_a_rate_of_its_own(
    site: Path, checkpoint: str, start: Callable[..., Server]
) -> None:
    path = path_with(Path(__file__).parent, site)
    server = start("fern", "--plugin", "vtprune", model=checkpoint, PYTHONPATH=path)
    usage = server.ask(photo_question(0))["usage"]
    assert usage["visual_tokens"] == {"original": 576, "kept": 144}
    answer = server.post(photo_question(0), vtprune={"method": "resize"})
    assert answer.status_code == 400
    assert "one that leaves ferns their size" in answer.json()["error"]["message"]
