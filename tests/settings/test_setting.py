"""What is shown of a key follows from its field: of the keys there are, and of one planted in a
copy of the packages, where nothing else is edited."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import settings_table

import vllm_pruner
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.defaults import DEFAULT_RATE
from vllm_pruner.settings.server import ServerConfig
from vllm_pruner.settings.setting import settings_of

ROOT = Path(vllm_pruner.__file__).parents[1]

FIELD = '''
    sharpness: Annotated[int, Field(ge=1)] = 3
    """Edge length of what
    is seen."""

'''

LOOK = r"""
import argparse, json
import settings_table
from vllm_pruner.settings import cli
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.rules import image_configs
from vllm_pruner.settings.server import ServerConfig
from vtprune_server import protocol

def config(*flags):
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return ServerConfig.parse(cli.settings(parser.parse_args(["--plugin=vtprune", *flags])))

def fault(action):
    try:
        action()
    except ConfigError as error:
        return str(error)

parser = argparse.ArgumentParser()
cli.add_arguments(parser)
(asked,) = image_configs(config("--prune-sharpness=5"), {"sharpness": 4}, [576], 576)
print(json.dumps({
    "help": parser.format_help(),
    "set": config("--prune-sharpness=5").sharpness,
    "asked": asked.sharpness,
    "canonical": asked.canonical(),
    "bad flag": fault(lambda: config("--prune-sharpness=0")),
    "bad key": fault(lambda: PruneConfig.parse({"blur": 1})),
    "bad server key": fault(lambda: ServerConfig.parse({"blur": 1})),
    "openapi": protocol.EstimateRequest.model_json_schema()["properties"]["vtprune"],
    "table": "".join(settings_table.tables()),
}))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a copy shows whose `PruneConfig` has one more field."""
    copy = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "vllm_pruner", copy / "vllm_pruner", ignore=ignored)
    shutil.copytree(ROOT / "server", copy / "server", ignore=ignored)
    config = copy / "vllm_pruner" / "settings" / "config.py"
    before, validator, after = config.read_text().partition('    @model_validator(mode="before")')
    config.write_text(f"{before.rstrip()}\n{FIELD}{validator}{after}")
    folders = [copy, copy / "server", ROOT / "kernels", ROOT / "environment"]
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        cwd=copy,  # which `-c` puts before all other folders
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


def test_a_new_field_is_a_flag_with_help(seen: dict[str, Any]) -> None:
    text = " ".join(seen["help"].split())
    assert "--prune-sharpness N Edge length of what is seen. Default: 3." in text
    assert seen["set"] == 5


def test_a_new_field_is_a_key_of_requests_and_of_an_image_s_identity(seen: dict[str, Any]) -> None:
    assert seen["asked"] == 4
    assert json.loads(seen["canonical"])["sharpness"] == 4


def test_a_new_field_is_named_in_errors(seen: dict[str, Any]) -> None:
    assert seen["bad flag"] == ("--prune-sharpness is 0; it should be greater than or equal to 1")
    start = "blur is 1 but there is no such key; allowed: "
    keys = [*PruneConfig.model_fields, "sharpness"]
    assert seen["bad key"] == start + ", ".join(keys)
    operators = [key for key in ServerConfig.model_fields if key not in PruneConfig.model_fields]
    assert seen["bad server key"] == start + ", ".join(keys + operators)


def test_a_new_field_is_in_the_openapi_and_in_the_table(seen: dict[str, Any]) -> None:
    settings, null = seen["openapi"]["anyOf"]
    assert null == {"type": "null"}
    assert settings["properties"]["sharpness"] == {
        "anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}],
        "default": None,
        "description": "Edge length of what is seen.",
        "title": "Sharpness",
    }
    row = "| `--prune-sharpness N` | `sharpness` | Edge length of what is seen | `3` |"
    assert row in seen["table"].splitlines()


def test_the_page_has_the_tables_of_the_fields() -> None:
    """`python environment/settings_table.py` writes them."""
    page = settings_table.PAGE.read_text()
    assert settings_table.updated(page) == page
    requested, own = settings_table.tables()
    assert "| `rate` |" in requested and "| `limits` |" in own


def test_a_page_without_the_tables_is_not_taken_for_one_with_them() -> None:
    with pytest.raises(ValueError, match="the page has 0 tables"):
        settings_table.updated("# vtprune\n")


def test_the_help_has_the_values_of_the_defaults() -> None:
    helps = {setting.key: setting.help for setting in settings_of(ServerConfig)}
    assert f"Default: 8/9 ({DEFAULT_RATE:.4f}), which" in helps["rate"]
    assert helps["detail"].endswith('Default: {"low": 0.95, "high": 0.5, "original": 0.0}.')
    assert "min_tokens (fewest visual tokens that an image keeps; " in helps["limits"]
    assert helps["crop_budget"].endswith("Allowed: joint, per_crop. Default: joint.")
    assert not any("`" in text for text in helps.values())


def test_an_example_may_be_typed_alone() -> None:
    """Without another flag, so it is one for the default method."""
    texts = {setting.key: setting.about for setting in settings_of(ServerConfig)}
    examples = {key: re.findall(r"`({.*?})`", text) for key, text in texts.items()}
    assert {key for key, found in examples.items() if found} == {"options", "limits"}
    for key, found in examples.items():
        for example in found:
            ServerConfig.parse({key: json.loads(example)})
