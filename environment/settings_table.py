"""The tables of settings, generated from their fields: python environment/settings_table.py writes
them into docs/settings.md.

`tests/settings/test_setting.py` fails if the page's tables differ.
"""

from __future__ import annotations

import re
from pathlib import Path

from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.server import ServerConfig
from vllm_pruner.settings.setting import Setting, flag, settings_of

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"

_HEAD = """\
| flag | key | meaning | default |
|---|---|---|---|
"""
_TABLE = re.compile(re.escape(_HEAD) + r"(?:\|.*\n)*")


def tables() -> list[str]:
    """Return the tables in Markdown: settings that a request may have too, and the server's own."""
    settings = settings_of(ServerConfig)
    requested = [each for each in settings if each.key in PruneConfig.model_fields]
    own = [each for each in settings if each.key not in PruneConfig.model_fields]
    return [_HEAD + "".join(map(_row, part)) for part in (requested, own)]


def updated(page: str) -> str:
    """Return the text of a page with its tables replaced.

    Raises:
        ValueError: it does not have two.
    """
    waiting = tables()
    places = len(_TABLE.findall(page))
    if places != len(waiting):
        raise ValueError(f"the page has {places} tables of settings; allowed: {len(waiting)}")
    return _TABLE.sub(lambda _: waiting.pop(0), page)


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
    PAGE.write_text(updated(PAGE.read_text()))
