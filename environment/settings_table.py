"""The README's table of settings, generated from their fields: python environment/settings_table.py
writes it into README.md.

`tests/settings/test_setting.py` fails if the README's table differs.
"""

from __future__ import annotations

import re
from pathlib import Path

from vllm_pruner.settings.server import ServerConfig
from vllm_pruner.settings.setting import Setting, flag, settings_of

README = Path(__file__).parents[1] / "README.md"

_HEAD = """\
| flag | key | meaning | default |
|---|---|---|---|
| `--plugin vtprune` | | Prune; without it nothing changes | |
"""
_TABLE = re.compile(re.escape(_HEAD) + r"(?:\|.*\n)*")


def table() -> str:
    """Return the table in Markdown."""
    return _HEAD + "".join(map(_row, settings_of(ServerConfig)))


def updated(readme: str) -> str:
    """Return the text of a README with its table replaced.

    Raises:
        ValueError: it has no table, or several.
    """
    text, places = _TABLE.subn(lambda _: table(), readme)
    if places != 1:
        raise ValueError(f"README has {places} tables of settings; allowed: one")
    return text


def _row(setting: Setting) -> str:
    keys = f". Keys: {', '.join(f'`{key}`' for key in setting.keys)}" if setting.keys else ""
    default = setting.default
    if default and not setting.explains_default:
        default = f"`{default}`"
    cells = [
        f"`{flag(setting.key)} {setting.metavar}`",
        f"`{setting.key}`",
        (setting.about.removesuffix(".") + keys).replace("|", "\\|"),
        default,
    ]
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|\n"


if __name__ == "__main__":
    README.write_text(updated(README.read_text()))
