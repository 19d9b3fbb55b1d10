"""Normalise VQA answers and score them against those of ten people.

The normalisation of the official VQA evaluation (Antol et al., ICCV 2015): punctuation and articles
removed, number words to digits, apostrophes restored in contractions. The score is the mean over
people of min(1, matches among the other nine / 3).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["normalize", "vqa_accuracy"]

_NUMBERS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
}
_NUMBERS |= {"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"(?<!\d)\.(?!\d)")
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_WITH_APOSTROPHE = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd
how'll how's I'd've I'm I've isn't it'd it'll let's ma'am mightn't might've mustn't must've
needn't o'clock oughtn't shan't should've shouldn't somebody'd somebody's someone'd someone's
something'd that'd that's there'd there're there's they'd they'll they're they've wasn't we've
weren't what'll what're what's what've when's where'd where's where've who'd who'll who's who've
why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
_CONTRACTIONS = {word.replace("'", "").lower(): word.lower() for word in _WITH_APOSTROPHE.split()}


def _without_punctuation(text: str) -> str:
    for mark in _PUNCTUATION:
        alone = f"{mark} " in text or f" {mark}" in text
        if alone or _COMMA_IN_NUMBER.search(text):
            text = text.replace(mark, "")
        else:
            text = text.replace(mark, " ")
    return _PERIOD.sub("", text)


def normalize(text: str) -> str:
    """Return an answer in the form in which it is compared."""
    text = _without_punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    words = [_NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(answer: str, people: Sequence[str]) -> float:
    """Return the official accuracy, in [0, 1]."""
    said, given = normalize(answer), [normalize(person) for person in people]
    scores = []
    for i in range(len(given)):
        others = given[:i] + given[i + 1 :]
        scores.append(min(1.0, others.count(said) / 3))
    return sum(scores) / len(scores)
