"""A chat request over HTTP: take settings from its body. `counts` has what its answer says.

`"vtprune": {...}` in the body and OpenAI's `image_url.detail` reach the processor as
`mm_processor_kwargs["vtprune"]`, as a trusted request could set it, but no other processor argument
does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vllm_pruner import compat
from vllm_pruner.prompt.body import check_beside, check_keys
from vllm_pruner.prompt.first_token import is_watched
from vllm_pruner.prompt.levels import levels_of
from vllm_pruner.prompt.names import of_holder
from vllm_pruner.prompt.refusal import answered, refusal, wishes_refusal
from vllm_pruner.settings.again import UNPRUNED, Again
from vllm_pruner.settings.detail import AUTO, DETAIL, without_detail
from vllm_pruner.settings.in_tree import check_owner
from vllm_pruner.settings.keys import COUNTS, KEY, settings_in
from vllm_pruner.settings.rules import check
from vllm_pruner.settings.server import ServerConfig
from vllm_pruner.settings.wishes import Wishes, apart, wishes_fault

if TYPE_CHECKING:
    from vllm.config import ModelConfig

__all__ = ["rename", "requested"]


def requested(
    model_config: ModelConfig, request: Any, messages: list[Any]
) -> dict[str, Any] | Again | None:
    """Return a request's settings; None if it has none or if this server does not prune.

    Raises:
        VLLMValidationError: a 400 for the client.
        GenerationError: a 500, if a method of another package cannot read its options.
    """
    if settings_in(model_config.multimodal_config) is None:
        return None
    unknown = getattr(request, "model_extra", None) or {}
    unknown.pop(COUNTS, None)  # sent by the client itself
    check_keys(unknown)
    check_beside(request, messages)
    said, levels = getattr(request, KEY, None), _detail(messages)
    if isinstance(said, Again):  # a copy of a request that was checked before
        own = {**_own(said), **levels}
        return said if said.settings is UNPRUNED else Again(own, said.rate)
    trusted = settings_in(request)
    if said is not None and trusted is not None:
        raise refusal(f"{KEY}: settings are given twice; allowed: in the body or in its kwargs")
    with answered():  # here, because a request without an image reaches no processor
        sent = (
            _of_body(model_config, said) if trusted is None else _of_kwargs(model_config, trusted)
        )
    if levels and DETAIL in sent:
        raise refusal(f"{KEY}: {DETAIL} is given twice; allowed: in the images or in the kwargs")
    own = {**sent, **levels}
    if _is_only_counted(request):
        return Again(own or None, is_answered=False)
    return own if own or trusted is not None else None


def rename(model_config: ModelConfig, messages: list[Any]) -> list[Any]:
    """Return messages in which the names of images are private to the client; see `names`."""
    if settings_in(model_config.multimodal_config) is None:
        return messages
    return of_holder(messages, compat.key_holder())


def _of_body(model_config: ModelConfig, said: object) -> Mapping[str, Any]:
    """Return what a body says of its images, checked.

    Raises:
        ConfigError: the first fault.
    """
    if said is None:
        return {}
    server = ServerConfig.of(settings_in(model_config.multimodal_config) or {})
    wishes, own = apart(said)
    _check_wishes(server, wishes)
    check(server, own)
    check_owner(compat.in_tree(model_config.multimodal_config), own)
    checked: Mapping[str, Any] = own
    return checked


def _of_kwargs(model_config: ModelConfig, trusted: object) -> Mapping[str, Any]:
    """Return the same of the processor's arguments, which may also hold the images' levels."""
    own = _of_body(model_config, without_detail(trusted))
    assert isinstance(trusted, Mapping), "it is checked"
    return {**own, **{key: trusted[key] for key in (DETAIL,) if key in trusted}}


def _is_only_counted(request: Any) -> bool:
    """Whether nothing is generated from a request's prompt: `/tokenize` and, of Anthropic's API,
    `count_tokens`. Only the former's requests have this field."""
    return hasattr(request, "return_token_strs")


def _check_wishes(server: ServerConfig, wishes: Wishes | None) -> None:
    """Refuse what is wished for where it is not given."""
    if wishes is None:
        return
    if not is_watched():
        raise wishes_refusal()
    if found := wishes_fault(server.limits, wishes):
        raise found


def _own(again: Again) -> Mapping[str, Any]:
    _, own = apart(again.settings)  # an answer that is only compared says nothing of itself
    return own if isinstance(own, Mapping) else {}


def _detail(messages: Iterable[Any]) -> dict[str, list[str]]:
    levels = levels_of(messages)
    return {DETAIL: levels} if set(levels) - {AUTO} else {}
