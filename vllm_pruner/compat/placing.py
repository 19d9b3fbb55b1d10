"""vLLM's error for a picture that its prompt has no place for.

Replaces: nothing.
Why: vLLM asserts that there is a place. A chat template that leaves out the content of a role, and
`truncate_prompt_tokens`, which cuts before placeholders are inserted, are a client's to change,
but the assertion is answered with a 500.
Relies on: the beginning of the assertion's message; another one passes through as it is.
vLLM versions: 0.31 to 0.33.
Goes when: vLLM answers it with a 400.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["told_if_unplaced"]

_MESSAGE = "Failed to apply prompt replacement for mm_items["


@contextmanager
def told_if_unplaced(refusal: Callable[[], Exception]) -> Iterator[None]:
    """Raise another error in place of vLLM's in the block.

    Args:
        refusal: returns it.
    """
    try:
        yield
    except AssertionError as error:
        if not str(error).startswith(_MESSAGE):
            raise
        raise refusal() from error
