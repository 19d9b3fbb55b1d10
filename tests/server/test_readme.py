"""What README and docs tell a newcomer to type does what they say."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from media import image_part, text_part
from vllm_server import Server

ROOT = Path(__file__).parents[2]
SCENE = ROOT / "assets" / "scene.png"
README = (ROOT / "README.md").read_text()
PAGES = {file: file.read_text() for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
ALL = "\n".join(PAGES.values())


def _block(beginning: str, text: str = ALL) -> str:
    """The code block that begins so."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)
    (block,) = [block for block in blocks if block.startswith(beginning)]
    return str(block)


@pytest.mark.server
def test_curl_is_answered_as_shown(answering: Server) -> None:
    """The shell builds the body; `curl` itself is replaced by its last argument's printing."""
    script = 'curl() { printf %s "${@: -1}"; }\n' + _block("curl ", README)
    shell = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True)
    headers = {"Content-Type": "application/json"}
    response = answering.client.post("/v1/chat/completions", content=shell.stdout, headers=headers)
    completion = response.json()
    shown = json.loads(_block("{", README))
    assert completion["usage"]["prompt_tokens"] == shown["usage"]["prompt_tokens"]
    answer = completion["choices"][0]["message"]["content"]
    assert answer == shown["choices"][0]["message"]["content"]


@pytest.mark.server
def test_the_faint_diamond_is_what_the_readme_says(answering: Server) -> None:
    """Every setting beside the question in its paragraph, and none, and unpruned."""
    (told,) = re.findall(r"Ask for\nthe faint diamond, .*?(?=Of photographs)", README, re.DOTALL)
    (question,) = re.findall(r"`(What .*?)`", told)
    answers = {
        text: answering.text(
            [image_part(SCENE.read_bytes()), text_part(question)], vtprune=json.loads(text)
        ).strip()
        for text in ['{"rate": 0}', "{}", *re.findall(r"`({.*?})`", told)]
    }
    assert list(answers.values()) == ["pink", "pink", "orange", "pink"]
    assert re.findall(r"pink|orange", told) == ["pink", "orange", "pink"]  # the first two at once


def test_the_readme_is_read_in_a_minute() -> None:
    assert len(README.splitlines()) < 150


def test_every_architecture_is_in_the_table_of_models() -> None:
    """And none that is not served."""
    from vllm_pruner.families import registry

    page = PAGES[ROOT / "docs" / "models.md"]
    table = page[page.index("\n| model | `architectures`") : page.index("\nSome need flags")]
    rows = [row.split("|")[2] for row in table.splitlines() if row.startswith("| ")]
    assert {name for row in rows[1:] for name in re.findall(r"`(\w+)`", row)} == set(
        registry.classes()
    )


def test_selection_snippet_runs() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 576, 32, generator=generator)
    names = {"F": features, "A": torch.rand(2, 576, generator=generator)}
    exec(_block("import vllm_pruner"), names)
    assert names["kept"].shape == (2, 64)
    assert names["kept"].dtype == torch.int64


def test_every_flag_and_method_is_documented() -> None:
    import argparse

    from vllm_pruner import methods
    from vllm_pruner.settings import cli

    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    for action in parser._actions[1:]:
        assert f"`{action.option_strings[0]}" in PAGES[ROOT / "docs" / "settings.md"]
    for name in methods.names():
        assert f"| `{name}` | " in PAGES[ROOT / "docs" / "methods.md"]
    reading = ", ".join(f"`{name}`" for name in methods.names() if methods.get(name).needs_text)
    assert f"| {reading} | nothing" in PAGES[ROOT / "docs" / "scale.md"]
