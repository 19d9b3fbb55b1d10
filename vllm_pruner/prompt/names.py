"""Clients' names for their images: `uuid` in a content part.

vLLM takes a client's `uuid` as the identity of the content in all its caches, so a client could
replace another client's image by using its identity as a name. Here an item's identity is always
its content's. A `uuid` only refers to content that was sent before, by a holder of the same API
key.
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
"""Names remembered; the least recently used ones are forgotten first."""


class Known(NamedTuple):
    """The content that a name refers to."""

    identity: str
    """Identity of the content."""

    size: ImageSize | None
    """Size in pixels; None for content without a size."""

    picture: Picture = UNSEEN
    """What it shows, if it is an image."""


class Names:
    """The names that have been sent with content."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Known | None] = OrderedDict()

    def note(self, modality: str, name: str, known: Known) -> None:
        """Remember a name. A name that was sent with different contents refers to none of them,
        because it is not clear which one is meant."""
        key = _key(modality, name)
        if self._known.get(key, known) != known:
            self._known[key] = None
        else:
            self._known.setdefault(key, known)
        self._known.move_to_end(key)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)

    def find(self, modality: str, name: str) -> Known | None:
        """Return the content that a name refers to, or None."""
        key = _key(modality, name)
        if key in self._known:
            self._known.move_to_end(key)
        return self._known.get(key)


def _key(modality: str, name: str) -> bytes:
    """Return a key of fixed size, because a client's name may be of any length."""
    return hashlib.blake2b(f"{modality}\n{name}".encode(errors="surrogatepass")).digest()


def of_holder(messages: Sequence[Any], holder: str) -> list[Any]:
    """Return messages in which every `uuid` is prefixed with its client.

    Args:
        messages: the messages of a chat, as vLLM parses them.
        holder: `compat.key_holder()` of the request; if empty, nothing is changed.
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
    """Return a new name for the same image, under which no cache has it.

    Args:
        name: the client's name for it, or None.
    """
    return f"{_FRESH}{uuid.uuid4().hex}/{'' if name is None else name}"


def apart(name: str) -> tuple[str, str]:
    """Split a name into the client's and, if it is `fresh`, the salt that makes it so, else "".

    A client that sends a `fresh` name itself only has its own image processed again.
    """
    holder, mark, rest = name.partition(_FRESH)
    if not mark:
        return name, ""
    salt, _, own = rest.partition("/")
    return (f"{holder}{own}" if own else ""), salt
