"""Every touch of a vLLM private, in one place.

Read in the source of vLLM 0.32.0 and run on its CPU build. Each function says what it relies on
and when it may be deleted; what can be missing is looked up when the plugin or the model loads and
fails there, with a sentence, not in the middle of a request.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from torch import nn
    from vllm.config import ModelConfig, VllmConfig
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.layers.attention import MMEncoderAttention
    from vllm.multimodal.cache import BaseMultiModalProcessorCache

__all__ = [
    "CHECKED_VERSION",
    "add_worker_methods",
    "bare_image_cache",
    "check_version",
    "enable_endpoints",
    "patch_chat",
    "patch_engine_args",
    "patch_tracing",
    "position_embedding",
    "profiled_images",
    "tower_attention",
    "without_settings",
]

CHECKED_VERSION = "0.32"
"""The vLLM minor release that this file was read against."""


def check_version() -> None:
    """Refuse a vLLM that this file was not checked on.

    pip's bound says the same, but images and forks are installed past pip.

    Raises:
        RuntimeError: the version differs.
    """
    import vllm

    version = str(vllm.__version__)
    if not version.startswith(f"{CHECKED_VERSION}."):
        raise RuntimeError(
            f"vtprune: vLLM is {version}; allowed: {CHECKED_VERSION}.x "
            "(uninstall vtprune or set VLLM_VTPRUNE_DISABLE=1 to run this vLLM without it)"
        )


@contextlib.contextmanager
def _built_as_read() -> Iterator[None]:
    """Say in a sentence that a private which the block looks up is not there."""
    try:
        yield
    except (AttributeError, KeyError) as error:
        raise RuntimeError(f"vtprune: vLLM is not built as {CHECKED_VERSION} is: {error}") from None


def patch_engine_args(
    add_arguments: Callable[[argparse.ArgumentParser], None],
    fold_arguments: Callable[[EngineArgs, argparse.Namespace], None],
    configure: Callable[[EngineArgs, Callable[[], ModelConfig]], ModelConfig],
) -> None:
    """Extend vLLM's engine arguments: flags, their meaning, and the model configuration.

    Relies on `EngineArgs.add_cli_args`, `from_cli_args` and `create_model_config`: vLLM has no hook
    for a plugin's own options. Safe to call again. May go when it has one.

    Args:
        add_arguments: adds flags to the parser.
        fold_arguments: called with the engine arguments made from the parsed flags.
        configure: called instead of `create_model_config`; its second argument is the original.
    """
    from vllm.engine.arg_utils import EngineArgs

    if "_vtprune" in vars(EngineArgs):
        return
    with _built_as_read():
        add, parse, create = (
            EngineArgs.add_cli_args,
            EngineArgs.from_cli_args.__func__,  # type: ignore[attr-defined]
            EngineArgs.create_model_config,
        )

    @functools.wraps(add)
    def add_cli_args(parser: Any) -> Any:
        parser = add(parser)
        add_arguments(parser)
        return parser

    @functools.wraps(parse)
    def from_cli_args(cls: type[EngineArgs], args: argparse.Namespace) -> EngineArgs:
        engine_args: EngineArgs = parse(cls, args)
        fold_arguments(engine_args, args)
        return engine_args

    @functools.wraps(create)
    def create_model_config(self: EngineArgs) -> ModelConfig:
        return configure(self, functools.partial(create, self))

    setattr(EngineArgs, "_vtprune", True)  # noqa: B010
    setattr(EngineArgs, "add_cli_args", staticmethod(add_cli_args))  # noqa: B010
    setattr(EngineArgs, "from_cli_args", classmethod(from_cli_args))  # noqa: B010
    setattr(EngineArgs, "create_model_config", create_model_config)  # noqa: B010


def patch_chat(
    key: str,
    requested: Callable[[ModelConfig, Any, list[Any]], dict[str, Any]],
    take_counts: Callable[[Any, Any], None],
    report: Callable[[Any, Any], Any],
) -> None:
    """Let a chat request carry settings of ours, and its answer carry counts.

    Relies on `OnlineRenderer.preprocess_chat`, which makes the engine's input of every chat-like
    request and reads `request.mm_processor_kwargs`; on its `trust_request_mm_kwargs`; and on
    `OpenAIServingChat.create_chat_completion` and `OpenAIServingResponses.create_responses`. Safe
    to call again. May go when vLLM lets a plugin add a field to its requests.

    Args:
        key: our key in `mm_processor_kwargs`.
        requested: returns the settings of a request, given the server's model and the messages.
        take_counts: called with the request and the engine's input made of it.
        report: returns the answer to a client, given the request and vLLM's answer.

    Raises:
        RuntimeError: this vLLM is built in another way than the one this was read in.
    """
    from vllm.entrypoints.generate.base.protocol import validate_request_mm_kwargs
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
    from vllm.renderers.online_renderer import OnlineRenderer

    if "_vtprune" in vars(OnlineRenderer):
        return
    with _built_as_read():
        preprocess, complete, respond = (
            OnlineRenderer.preprocess_chat,
            OpenAIServingChat.create_chat_completion,
            OpenAIServingResponses.create_responses,
        )

    @functools.wraps(preprocess)
    async def preprocess_chat(
        self: OnlineRenderer, request: Any, messages: list[Any], *args: Any, **kwargs: Any
    ) -> Any:
        settings = requested(self.model_config, request, messages)
        theirs = getattr(request, "mm_processor_kwargs", None)
        if settings:
            validate_request_mm_kwargs(
                mm_processor_kwargs=theirs,
                media_io_kwargs=getattr(request, "media_io_kwargs", None),
                trust_request_mm_kwargs=self.trust_request_mm_kwargs,
            )
            self = copy.copy(self)  # this request alone: what the client sent has been checked
            self.trust_request_mm_kwargs = True
            request.mm_processor_kwargs = {**(theirs or {}), key: settings}
        try:
            conversation, inputs = await preprocess(self, request, messages, *args, **kwargs)
        finally:
            if settings:
                request.mm_processor_kwargs = theirs
        for engine_input in inputs:
            take_counts(request, engine_input)
        return conversation, inputs

    @functools.wraps(complete)
    async def create_chat_completion(
        self: OpenAIServingChat, request: Any, raw_request: Any = None
    ) -> Any:
        return report(request, await complete(self, request, raw_request))

    @functools.wraps(respond)
    async def create_responses(
        self: OpenAIServingResponses, request: Any, raw_request: Any = None
    ) -> Any:
        return report(request, await respond(self, request, raw_request))

    setattr(OnlineRenderer, "_vtprune", True)  # noqa: B010
    setattr(OnlineRenderer, "preprocess_chat", preprocess_chat)  # noqa: B010
    setattr(OpenAIServingChat, "create_chat_completion", create_chat_completion)  # noqa: B010
    setattr(OpenAIServingResponses, "create_responses", create_responses)  # noqa: B010


def patch_tracing(attributes: Callable[[Any], dict[str, Any]]) -> None:
    """Let vLLM's span of a request carry attributes of ours.

    vLLM makes the span `llm_request` when the last token is there, in the API server, with explicit
    times: no span is current while the request runs, and a span processor would see neither the
    request nor, in time, its attributes. Relies on `AsyncLLM.generate`, which gets the engine's
    input, for the request's name; and on `vllm.v1.engine.output_processor` calling its
    `instrument_manual` with that name among the attributes, before `generate` ends. Requests
    without attributes take vLLM's own path. Safe to call again. May go when a renderer can add to
    a request's span.

    Args:
        attributes: returns them by name, given an engine's input; empty for none.

    Raises:
        RuntimeError: this vLLM is built in another way than the one this was read in.
    """
    from vllm.tracing import SpanAttributes
    from vllm.v1.engine import output_processor
    from vllm.v1.engine.async_llm import AsyncLLM

    if "_vtprune" in vars(AsyncLLM):
        return
    with _built_as_read():
        run, make, request_name = (
            AsyncLLM.generate,
            vars(output_processor)["instrument_manual"],  # imported there, not exported
            SpanAttributes.GEN_AI_REQUEST_ID,
        )
    running: dict[Any, dict[str, Any]] = {}

    @functools.wraps(run)
    def generate(
        self: AsyncLLM, prompt: Any, sampling_params: Any, request_id: str, **kwargs: Any
    ) -> AsyncGenerator[Any, None]:
        outputs = run(self, prompt, sampling_params, request_id, **kwargs)
        found = attributes(prompt)
        return remembered(outputs, request_id, found) if found else outputs

    async def remembered(
        outputs: AsyncGenerator[Any, None], request_id: str, found: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        running[request_id] = found
        try:
            async with contextlib.aclosing(outputs):
                async for output in outputs:
                    yield output
        finally:
            running.pop(request_id, None)

    @functools.wraps(make)
    def instrument_manual(*args: Any, **kwargs: Any) -> Any:
        given = kwargs.get("attributes") or {}
        if found := running.get(given.get(request_name)):
            kwargs["attributes"] = {**given, **found}
        return make(*args, **kwargs)

    setattr(AsyncLLM, "_vtprune", True)  # noqa: B010
    setattr(AsyncLLM, "generate", generate)  # noqa: B010
    setattr(output_processor, "instrument_manual", instrument_manual)  # noqa: B010


def enable_endpoints(name: str) -> None:
    """Load the endpoint plugin `name` as if it stood in `VLLM_PLUGINS`.

    Naming it there would switch off every other plugin of every kind that is not named too. Relies
    on `vllm.plugins.load_endpoint_plugins`, looked up when the server's routes are made. A server
    whose `VLLM_PLUGINS` is set loads what that says. Safe to call again. May go when endpoint
    plugins have a switch of their own.
    """
    from importlib.metadata import entry_points

    from vllm import envs, plugins

    load = plugins.load_endpoint_plugins
    if hasattr(load, "_vtprune"):
        return

    @functools.wraps(load)
    def load_endpoint_plugins(*args: Any, **kwargs: Any) -> Any:
        if envs.VLLM_PLUGINS is not None:
            return load(*args, **kwargs)
        found = entry_points(group=plugins.ENDPOINT_PLUGINS_GROUP, name=name)
        return [entry_point.load()() for entry_point in found]

    setattr(load_endpoint_plugins, "_vtprune", True)  # noqa: B010
    setattr(plugins, "load_endpoint_plugins", load_endpoint_plugins)  # noqa: B010


def add_worker_methods(methods: dict[str, Callable[..., Any]]) -> None:
    """Let `collective_rpc` call functions by name, with the worker's model as first argument.

    Relies on `WorkerBase.get_model`, and on `collective_rpc` looking methods up on the worker. Safe
    to call again. May go when a plugin can register such methods.
    """
    from vllm.v1.worker.worker_base import WorkerBase

    for name, function in methods.items():

        def method(self: WorkerBase, *args: Any, _call: Callable[..., Any] = function) -> Any:
            return _call(self.get_model(), *args)

        setattr(WorkerBase, name, method)


def without_settings(model_config: ModelConfig, key: str) -> ModelConfig:
    """Return a copy whose `mm_processor_kwargs` lack `key`, for what loads and calls HF processors.

    vLLM merges `mm_processor_kwargs` into every such call, where a foreign key is at best warned
    about and a nested object is not hashable. May go when vLLM has a place for a plugin's own
    settings in the model configuration.
    """
    mm_config = copy.copy(model_config.get_multimodal_config())
    kwargs = {k: v for k, v in (mm_config.mm_processor_kwargs or {}).items() if k != key}
    mm_config.mm_processor_kwargs = kwargs or None
    stripped = copy.copy(model_config)
    stripped.multimodal_config = mm_config
    return stripped


def bare_image_cache(
    cache: BaseMultiModalProcessorCache, model_config: ModelConfig
) -> BaseMultiModalProcessorCache:
    """Return the cache beside vLLM's own in which what HF made of images is kept without a plan.

    Of vLLM's three processor caches, one keeps the tensors in this process and serves as it is. The
    other two hand them to the engine, so one of the first kind is put beside them, with the bound
    that vLLM documents for each process (`mm_processor_cache_gb`), and emptied with them. Neither
    is safe for threads; vLLM processes images on one. Relies on `clear_cache` being called on the
    instance. May go when vLLM's cache can hold an item under two identities.
    """
    from vllm.multimodal.cache import MultiModalProcessorOnlyCache

    if isinstance(cache, MultiModalProcessorOnlyCache):
        return cache
    beside: MultiModalProcessorOnlyCache | None = vars(cache).get("_vtprune_bare")
    if beside is not None:
        return beside
    beside = MultiModalProcessorOnlyCache(model_config)
    clear = cache.clear_cache

    def clear_both() -> None:
        clear()
        beside.clear_cache()

    setattr(cache, "_vtprune_bare", beside)  # noqa: B010
    setattr(cache, "clear_cache", clear_both)  # noqa: B010
    return beside


def profiled_images(vllm_config: VllmConfig, tokens: int) -> int:
    """Return how many images of `tokens` unpruned tokens vLLM's memory profile encodes at once.

    vLLM's scheduler counts placeholders, so after pruning it admits many more images into one
    encoder step than the tower's memory was profiled for. Follows
    `vllm.multimodal.encoder_budget.MultiModalBudget._get_max_items`, which needs a whole processor
    to be asked. May go when the scheduler counts the tower's input.
    """
    from vllm.v1.core.encoder_cache_manager import compute_mm_encoder_budget

    scheduler, model = vllm_config.scheduler_config, vllm_config.model_config
    by_encoder = min(compute_mm_encoder_budget(scheduler, {"image": tokens})) // tokens
    limit = model.get_multimodal_config().get_limit_per_prompt("image")
    requests = scheduler.max_num_seqs
    if not scheduler.enable_chunked_prefill:
        requests = min(requests, scheduler.max_num_batched_tokens // tokens)
    by_decoder = requests * max(1, min(limit, model.max_model_len // tokens))
    return max(1, min(by_encoder, by_decoder))


def tower_attention(tower: nn.Module, layer: int = -1) -> MMEncoderAttention:
    """Return the attention module of a tower's layer; by default of the one that produces the
    features.

    vLLM builds its CLIP and SigLIP towers only up to the feature layer, so that is the last one.
    Its `MMEncoderAttention` is called with query, key and value of `[images, tokens, heads * size]`
    each, and has `num_heads` (this rank's), `scale`.

    Raises:
        RuntimeError: the tower is built in another way than in the vLLM this was read in.
    """
    from vllm.model_executor.layers.attention import MMEncoderAttention

    attention: nn.Module
    try:
        layers: Any = tower.get_submodule("vision_model.encoder.layers")
        attention = layers[layer].self_attn.attn
    except (AttributeError, IndexError):
        attention = tower
    if not isinstance(attention, MMEncoderAttention):
        raise RuntimeError(
            f"vtprune: {type(tower).__name__} has no MMEncoderAttention at "
            f"vision_model.encoder.layers[{layer}].self_attn.attn as it has in vLLM "
            f"{CHECKED_VERSION}"
        )
    return attention


def position_embedding(tower: nn.Module) -> nn.Embedding:
    """Return the learnt positions of a CLIP or SigLIP tower: `[positions, D]`, a class token's
    first, then the patches' in raster order.

    Their embedding modules look all of them up and add them to the patches, whatever the image's
    size, so that another output of this module is another grid. (vLLM's SigLIP has an
    `interpolate_pos_encoding` of its own, which takes the width for the number of positions.) May
    go when both towers interpolate.

    Raises:
        RuntimeError: the tower is built in another way than in the vLLM this was read in.
    """
    from torch import nn

    try:
        positions: Any = tower.get_submodule("vision_model.embeddings.position_embedding")
    except AttributeError:
        positions = None
    if not isinstance(positions, nn.Embedding):
        raise RuntimeError(
            f"vtprune: {type(tower).__name__} has no Embedding at "
            f"vision_model.embeddings.position_embedding as it has in vLLM {CHECKED_VERSION}"
        )
    return positions
