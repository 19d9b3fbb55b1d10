"""What routers and caches of KV know a picture by: the keys of its blocks, in vLLM's KV events."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from pruning_processor import pruning_processor
from vllm.multimodal.inputs import MultiModalFeatureSpec
from vllm.multimodal.processing import ProcessorInputs
from vllm.sampling_params import SamplingParams
from vllm.v1.core.kv_cache_utils import generate_block_hash_extra_keys, to_event_extra_keys
from vllm.v1.request import Request

from vllm_pruner.telemetry import metrics

IMAGE, WORD = 4, 7
BLOCK = 32
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (336, 336, 3), np.uint8))


@cache
def processor(**arguments: Any) -> Any:
    return pruning_processor("demo", settings={"tokens": 64}, **arguments)


def rendered(it: Any, **settings: Any) -> Any:
    """The engine's input of a prompt with one picture, three tokens from its beginning."""
    items = it.info.parse_mm_data({"image": [PICTURE]})
    kwargs = {"vtprune": settings} if settings else {}
    return it([WORD] * 3 + [IMAGE] + [WORD] * 5, items, hf_processor_mm_kwargs=kwargs)


def keys_of_blocks(output: Any) -> list[tuple[Any, ...] | None] | None:
    """The keys that a KV event publishes of each block of the prompt."""
    (identity,), (place,) = output["mm_hashes"]["image"], output["mm_placeholders"]["image"]
    tokens = output["prompt_token_ids"]
    feature = MultiModalFeatureSpec(
        data=output["mm_kwargs"]["image"][0],
        modality="image",
        identifier=identity,
        mm_position=place,
    )
    request = Request("0", tokens, SamplingParams(max_tokens=1), None, mm_features=[feature])
    ends = range(BLOCK, len(tokens) + 1, BLOCK)
    keys = [generate_block_hash_extra_keys(request, end - BLOCK, end, 0)[0] for end in ends]
    return to_event_extra_keys(keys)


def stock_hashes(it: Any) -> Any:
    """What vLLM itself makes of the picture."""
    items = it.info.parse_mm_data({"image": [PICTURE]})
    algorithm = it.info.ctx.get_mm_config().mm_hasher_algorithm
    return ProcessorInputs([IMAGE], items).get_mm_hashes(it.info.model_id, algorithm)


def test_blocks_have_the_identity_of_picture_and_settings() -> None:
    output = rendered(processor())
    (identity,) = output["mm_hashes"]["image"]
    assert keys_of_blocks(output) == [((identity, 3),), ((identity, 3 - BLOCK),)]
    assert rendered(processor())["mm_hashes"] == output["mm_hashes"]
    assert int(identity, 16) >= 0


def test_settings_change_it() -> None:
    asked: list[dict[str, Any]] = [{}, {"tokens": 65}, {"tokens": 64, "method": "adafv"}]
    identities = [rendered(processor(), **own)["mm_hashes"]["image"][0] for own in asked]
    whole = rendered(processor(), rate=0)
    assert len({*identities, whole["mm_hashes"]["image"][0]}) == len(asked) + 1
    assert whole["mm_hashes"] == stock_hashes(processor()), "unpruned, it is stock's own"
    keys = keys_of_blocks(whole)
    assert keys is not None and len(keys) == (3 + 576 + 5) // BLOCK and None not in keys


def test_an_engine_that_only_encodes_counts_no_request() -> None:
    """The one that it hands the request on to does."""

    def requests() -> float:
        found = metrics.totals()
        return sum(count for (name, _), count in found.items() if name == "vtprune_requests")

    only_encodes, whole = processor(mm_encoder_only=True), processor()
    before = requests()
    rendered(only_encodes)
    assert requests() == before
    rendered(whole)
    assert requests() == before + 1
