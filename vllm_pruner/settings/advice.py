"""Suggest what to write instead of an unusable setting, at the end of the error's sentence.

Only where it is clear what was meant: a percentage for a fraction, a word for "off", the share kept
for the share removed, another method's option, or a misspelt name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher, get_close_matches
from math import isfinite

__all__ = [
    "METHOD",
    "RATE",
    "VIDEO_RATE",
    "nearest",
    "of_key",
    "of_name",
    "of_option",
    "of_value",
    "off",
]

METHOD, RATE, VIDEO_RATE = "{method}", "{rate}", "{video_rate}"
"""Placeholders in an advice for the reader's name of a key: `rate`, or `--prune-rate`."""

_OFF_WORDS = frozenset({"off", "none", "no", "false", "disabled", "stock", "unpruned"})
_OFF_KEYS = frozenset({"enable", "enabled", "disable", "disabled", "off"})
_KEPT_SHARE = re.compile(r"keep|kept|(keep|kept|retain|retention)_?(ratio|rate|share|fraction)")
_PREFIX = re.compile(r"^(vtprune|prune|pruning|token)_(?=.)")
_ALIKE = 0.65
"""Least similarity of a misspelling: `ratio` suggests `rate`, `stride` suggests nothing."""

_PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")


def nearest(name: str, allowed: Iterable[str], least: float = _ALIKE) -> str | None:
    """Return the allowed name that was probably meant; None if none is similar or two are equally
    similar.

    Args:
        name: what was written.
        allowed: what could have been.
        least: similarity from which a name is similar, 1 for the same one.
    """
    plain = _PREFIX.sub("", name[:64].lower().replace("-", "_"))
    spelt = {each.lower().replace("-", "_"): each for each in allowed}
    found = get_close_matches(plain, spelt, n=2, cutoff=least)
    likeness = [SequenceMatcher(None, each, plain).ratio() for each in found]
    return spelt[found[0]] if found and likeness.count(likeness[0]) == 1 else None


def off(value: object, rate: str = RATE) -> str:
    """Return how to turn pruning off if that is what a value says, else "".

    Args:
        value: the value, from outside.
        rate: placeholder of the rate to set to 0, of images or of videos.
    """
    word = value.strip().lower() if isinstance(value, str) else value
    says = word is False or (isinstance(word, str) and word in _OFF_WORDS)
    return f"to turn pruning off write {rate} 0" if says else ""


def of_name(name: str, allowed: Iterable[str], rate: str = RATE) -> str:
    """Return the advice for an unknown name, such as a method's; "" if there is none."""
    found = nearest(name, allowed)
    return off(name, rate) or (f"the nearest is {found}" if found else "")


def of_option(owners: Iterable[str]) -> str:
    """Return the advice for an option that other methods have, `owners`; "" if none has it."""
    names = " or ".join(owners)
    return f"{METHOD} {names} has it" if names else ""


def of_key(key: str, value: object, allowed: Iterable[str]) -> str:
    """Return the advice for an unknown key, given its value; "" if there is none."""
    names, plain = list(allowed), key.lower().replace("-", "_")
    rate = VIDEO_RATE if plain.startswith("video_") else RATE
    share_of = _PREFIX.sub("", plain.removeprefix("video_"))
    if rate.strip("{}") in names and _KEPT_SHARE.fullmatch(share_of):
        is_share = isinstance(value, int | float) and 0 < value <= 1
        share = f", here {1 - float(value):g}" if is_share else ""  # type: ignore[arg-type]
        return f"{rate} is what is removed, 1 - {plain}{share}"
    if "rate" in names and plain in _OFF_KEYS:
        return f"to turn pruning off write {RATE} 0"
    found = nearest(plain, names)
    return f"the nearest is {found}" if found else ""


def of_value(key: str, value: object, kind: str, bounds: Mapping[str, object]) -> str:
    """Return the advice for a wrong value of a known key; "" if there is none.

    Args:
        key: the key's name.
        value: the value, from outside.
        kind: pydantic's type of the error.
        bounds: pydantic's context of the error, with the limits.
    """
    if key in ("rate", "method", "tokens") and (said := off(value)):
        return said
    if key in ("video_rate", "video_method") and (said := off(value, VIDEO_RATE)):
        return said
    if kind == "less_than" and bounds.get("lt") == 1.0 and _between(value, 10, 100):
        return _percentage(float(value))  # type: ignore[arg-type]
    if isinstance(value, str) and kind in ("float_type", "int_type"):
        return _quoted(value, whole=kind == "int_type")
    if key == "tokens" and _between(value, 0, 1):
        return f"for a share of an image write {RATE} {1 - float(value):g}"  # type: ignore[arg-type]
    return ""


def _between(value: object, least: float, most: float) -> bool:
    return isinstance(value, int | float) and least <= value < most and value != 0


def _percentage(value: float) -> str:
    return f"for {value:g} % write {value / 100:g}"


def _quoted(text: str, whole: bool) -> str:
    """Return the advice for text in place of a number or, if `whole`, an integer."""
    if (found := _PERCENT.fullmatch(text[:64])) and not whole:
        return _percentage(float(found[1]))
    try:
        number = int(text[:64]) if whole else float(text[:64])
    except ValueError:
        return ""
    return f"write {number:g}, without quotes" if isfinite(number) else ""
