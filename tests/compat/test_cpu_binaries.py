"""A vLLM for GPUs that borrows the operators of the installed one."""

from __future__ import annotations

from importlib.metadata import distributions
from pathlib import Path

import cpu_binaries
import pytest
from symbol_trees import installed

METADATA = "Metadata-Version: 2.4\nName: vllm\nVersion: 9.9.0\n\n# vLLM\nVersion: of the text\n"


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """What pip leaves of a wheel for GPUs."""
    (tmp_path / "vllm" / "attention").mkdir(parents=True)
    for name in ("_C.abi3.so", "_moe_C.abi3.so", "attention/fast.abi3.so", "attention/fast.py"):
        (tmp_path / "vllm" / name).write_text("of the wheel")
    record = tmp_path / "vllm-9.9.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(METADATA)
    return tmp_path


def test_its_binaries_are_the_installed_ones_and_its_python_stays(unpacked: Path) -> None:
    cpu_binaries.borrow(unpacked)
    here, there = unpacked / "vllm", installed() / "vllm"
    borrowed = {each.relative_to(here) for each in here.glob("**/*.so")}
    assert borrowed == {each.relative_to(there) for each in there.glob("**/*.so")}
    assert Path("_C.abi3.so") in borrowed
    assert all((here / each).samefile(there / each) for each in borrowed)
    assert (here / "attention" / "fast.py").read_text() == "of the wheel"


def test_vllm_takes_it_for_a_build_for_cpus(unpacked: Path) -> None:
    cpu_binaries.borrow(unpacked)
    (found,) = distributions(path=[str(unpacked)])
    assert (found.metadata["Name"], found.version) == ("vllm", "9.9.0+cpu")
    assert found.metadata.get_payload() == "# vLLM\nVersion: of the text\n"


def test_a_folder_without_vllm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^.* holds no vLLM$"):
        cpu_binaries.borrow(tmp_path)
