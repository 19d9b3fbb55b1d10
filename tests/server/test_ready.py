"""The last line of a start, and what is not in its log."""

from __future__ import annotations

import re
from argparse import Namespace
from typing import Any

import httpx
import pytest
from vllm_server import Server
from vtprune_server.ready import sentence

from vllm_pruner.settings.defaults import DEFAULT_METHOD
from vllm_pruner.settings.server import ServerConfig


def _said(settings: dict[str, Any], tokens: int = 576, **args: Any) -> str:
    given = {"host": None, "port": 8000, "uds": None, "root_path": None}
    given |= {"ssl_keyfile": None, "ssl_certfile": None, **args}
    return sentence(ServerConfig.parse(settings), tokens, Namespace(**given))


@pytest.mark.parametrize(
    ("args", "where"),
    [
        ({}, "http://localhost:8000/vtprune/"),
        ({"host": "0.0.0.0", "port": 80}, "http://localhost:80/vtprune/"),
        ({"host": "10.0.0.7"}, "http://10.0.0.7:8000/vtprune/"),
        ({"host": "::1"}, "http://[::1]:8000/vtprune/"),
        ({"root_path": "/llm/"}, "http://localhost:8000/llm/vtprune/"),
        ({"ssl_keyfile": "k", "ssl_certfile": "c"}, "https://localhost:8000/vtprune/"),
        ({"uds": "/tmp/v.sock"}, "/vtprune/ of /tmp/v.sock"),
    ],
    ids=str,
)
def test_it_names_the_playground(args: dict[str, Any], where: str) -> None:
    assert _said({}, **args).startswith(f"vtprune: playground at {where}; ")


OFF = 'off for a request with "vtprune": {"rate": 0}, for all without --plugin vtprune'


@pytest.mark.parametrize(
    ("settings", "kept", "ended"),
    [
        (
            {},
            f"{DEFAULT_METHOD} keeps 64 of an image's 576 visual tokens, more of one with print",
            OFF,
        ),
        (
            {"method": "adafv", "tokens": 40, "floor": "off"},
            "adafv keeps 40 of an image's 576 visual tokens",
            OFF,
        ),
        (
            {"request_tokens": 900},
            f"{DEFAULT_METHOD} keeps 900 visual tokens of a request's images",
            OFF,
        ),
        (
            {"rate": 0},
            "images are kept whole unless a request asks for less",
            "off for all without --plugin vtprune",
        ),
        (
            {"rate": 0.5, "limits": {"min_rate": 0.25}, "floor": "off"},
            f"{DEFAULT_METHOD} keeps 288 of an image's 576 visual tokens",
            "off for all without --plugin vtprune",
        ),
    ],
    ids=str,
)
def test_it_says_what_is_kept_and_how_to_end_that(
    settings: dict[str, Any], kept: str, ended: str
) -> None:
    assert _said(settings).split("; ")[1:] == [kept, ended]


@pytest.mark.server
def test_it_is_the_last_line_of_a_start_and_its_address_is_the_playground(pruned: Server) -> None:
    lines = pruned.log.splitlines()
    (place,) = [at for at, line in enumerate(lines) if "vtprune: playground at " in line]
    assert any("Application startup complete" in line for line in lines[:place])
    later = [line for line in lines[place + 1 :] if "HTTP/1.1" not in line]
    assert not any("INFO" in line and "startup" in line for line in later)
    found = re.search(r"http://\S+/vtprune/", lines[place])
    assert found and "<title>" in httpx.get(found[0]).text
    assert lines[place].endswith(OFF)


@pytest.mark.server
def test_no_warning_of_it_is_about_classes_that_were_asked_for(pruned: Server) -> None:
    assert "model_class_overrides" not in pruned.log
    assert "LlavaForConditionalGeneration" in pruned.log
