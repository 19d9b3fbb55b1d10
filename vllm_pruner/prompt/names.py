"""What clients call their images: `uuid` in a content part.

vLLM takes a client's `uuid` for the identity of the content, in all of its caches: who names an
image as another one's is identified puts the own one in its place. Here an identity is always the
content's, and a `uuid` only stands for it where no content is sent, for the holder of the same key.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from vllm_pruner.picture import UNSEEN, Picture

if TYPE_CHECKING:
    from vllm.multimodal.parse import ImageSize

__all__ = ["Known", "Names", "apart", "fresh", "of_holder"]

_FRESH = "vtprune-fresh:"
_MOST = 1 << 16
"""Names remembered; the ones not used for longest go first."""


class Known(NamedTuple):
    """What a name stands for."""

    identity: str
    """Of the content."""

    size: ImageSize | None
    """In pixels; None for what has none."""

    picture: Picture = UNSEEN
    """What it shows, if it is an image."""


class Names:
    """The names that were sent with content."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Known | None] = OrderedDict()

    def note(self, modality: str, name: str, known: Known) -> None:
        """Remember a name. One that was sent with different contents stands for none of them: who
        asks by it cannot be meant to get either."""
        key = _key(modality, name)
        if self._known.get(key, known) != known:
            self._known[key] = None
        else:
            self._known.setdefault(key, known)
        self._known.move_to_end(key)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)

    def find(self, modality: str, name: str) -> Known | None:
        """Return what a name stands for, or None."""
        key = _key(modality, name)
        if key in self._known:
            self._known.move_to_end(key)
        return self._known.get(key)


def _key(modality: str, name: str) -> bytes:
    """A client may send a name of any length."""
    return hashlib.blake2b(f"{modality}\n{name}".encode(errors="surrogatepass")).digest()


def of_holder(messages: Sequence[Any], holder: str) -> list[Any]:
    """Return messages in which every `uuid` is one of its client's own.

    Args:
        messages: of a chat, as vLLM parses them.
        holder: of the request's key; empty without keys.
    """
    return [_renamed(message, holder) for message in messages]


def _renamed(message: Any, holder: str) -> Any:
    content = message.get("content") if isinstance(message, dict) else None
    if not holder or not isinstance(content, list):
        return message
    parts = [
        {**part, "uuid": f"{holder}/{part['uuid']}"}
        if isinstance(part, dict) and part.get("uuid") is not None
        else part
        for part in content
    ]
    return {**message, "content": parts}


def fresh(name: object) -> str:
    """Return a name for the same image that no cache knows.

    Args:
        name: the client's, None if it has none.
    """
    return f"{_FRESH}{uuid.uuid4().hex}/{'' if name is None else name}"


def apart(name: str) -> tuple[str, str]:
    """Return the client's name and, if it is to be `fresh`, what makes it so.

    A client that writes such a name itself has its own image processed again.
    """
    holder, mark, rest = name.partition(_FRESH)
    if not mark:
        return name, ""
    salt, _, own = rest.partition("/")
    return (f"{holder}{own}" if own else ""), salt
