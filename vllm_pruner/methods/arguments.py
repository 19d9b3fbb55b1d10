"""What a caller outside vLLM hands to a method: whether it is there, and of the right shape.

Inside vLLM the models guarantee it.
"""

from __future__ import annotations

from vllm_pruner.methods.base import Method, Need, VisualTokens

__all__ = ["check_arguments"]

_USE = {
    Need.IMPORTANCE: "ranks tokens by it",
    Need.KEYS: "compares tokens by them",
    Need.RECEIVED: "ranks tokens by it",
    Need.RECEIVED_MIDWAY: "ranks tokens by it",
    Need.PROJECTED: "compares tokens in the decoder's space",
    Need.TEXT: "matches tokens with text",
    Need.GRID: "looks at neighbours",
}


def check_arguments(method: Method, keep: int, tokens: VisualTokens, single: bool) -> None:
    """Refuse what a method cannot work on.

    Args:
        method: the method.
        keep: tokens to keep of each image.
        tokens: what it would look at, with a dimension of images.
        single: whether the caller gave one image, without that dimension.

    Raises:
        ValueError: one sentence with the argument, its value and what is allowed.
    """
    _, total, _ = tokens.features.shape
    if type(keep) is not int or not 0 <= keep <= total:
        raise ValueError(f"keep is {keep!r}; allowed: 0 to {total}")
    if method.shrink is not None and keep != total:
        raise ValueError(
            f"keep is {keep}; allowed: {total}, because method {method.name!r} shrinks the image "
            "before there are tokens"
        )
    for need in Need:
        if need in method.needs and getattr(tokens, need) is None:
            raise ValueError(f"{need} is missing; method {method.name!r} {_USE[need]}")
    _check_shapes(tokens, single)
    if method.needs_text:
        _check_text(tokens)


def _check_shapes(tokens: VisualTokens, single: bool) -> None:
    """Refuse what does not fit the features."""
    images, total, _ = tokens.features.shape
    for need in (Need.IMPORTANCE, Need.RECEIVED, Need.RECEIVED_MIDWAY):
        scores = getattr(tokens, need)
        if scores is not None and scores.shape != (images, total):
            raise ValueError(
                f"{need} has shape {tuple(scores.shape[single:])}; "
                f"allowed: {(images, total)[single:]}, one score a token"
            )
    for need in (Need.KEYS, Need.PROJECTED):
        rows = getattr(tokens, need)
        if rows is not None and (rows.dim() != 3 or rows.shape[:2] != (images, total)):
            raise ValueError(
                f"{need} has shape {tuple(rows.shape[single:])}; "
                f"allowed: one row for each of {images} x {total} tokens"
            )
    if tokens.grid is not None and tokens.grid[0] * tokens.grid[1] != total:
        raise ValueError(f"grid is {tokens.grid}; allowed: rows and columns of {total} tokens")


def _check_text(tokens: VisualTokens) -> None:
    """Refuse text that does not fit the tokens."""
    assert tokens.projected is not None
    assert tokens.text is not None
    images, _, width = tokens.projected.shape
    if len(tokens.text) != images or any(text.shape[1:] != (width,) for text in tokens.text):
        raise ValueError(
            f"text has shapes {[tuple(text.shape) for text in tokens.text]}; "
            f"allowed: [tokens, {width}] for each of {images} images"
        )
