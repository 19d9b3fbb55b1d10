"""How many visual tokens the images and videos of a prompt have, before it is made, and keep, once
vLLM has inserted its placeholders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vllm.multimodal.parse import DictEmbeddingItems, ImageEmbeddingItems

from vllm_pruner.prompt.asked import VIDEO, Asked
from vllm_pruner.prompt.places import check_counts, check_reach
from vllm_pruner.prompt.refusal import answered, refusal
from vllm_pruner.settings.errors import ConfigError, shown
from vllm_pruner.settings.keys import PLAN_BETWEEN
from vllm_pruner.settings.video_rules import check_video

if TYPE_CHECKING:
    from vllm.inputs import MultiModalInput
    from vllm.multimodal.parse import ImageSize

    from vllm_pruner.prompt.info import PrunedInfo

__all__ = ["count", "image_tokens"]


def image_tokens(
    info: PrunedInfo,
    images: Any,
    sizes: Sequence[ImageSize | None],
    mm_kwargs: Mapping[str, object],
) -> list[int | None]:
    """Return the visual tokens of each image, unpruned; None if they are not yet known, as for
    embeddings.

    Args:
        info: the model's.
        images: vLLM's items.
        sizes: sizes in pixels, before the processor resizes them.
        mm_kwargs: the request's arguments for the processor.
    """
    if isinstance(images, DictEmbeddingItems):
        return [None] * len(images)
    if isinstance(images, ImageEmbeddingItems):
        return [images.get_feature_size(place) for place in range(len(images))]
    unsized = info.get_max_image_tokens() if info.family.one_layout else None
    with _taken(mm_kwargs):
        return [unsized if size is None else info.image_tokens(size, mm_kwargs) for size in sizes]


@contextmanager
def _taken(mm_kwargs: Mapping[str, object]) -> Iterator[None]:
    """Blame a request's arguments for the processor for what fails in the block; without any, it is
    a fault of ours.

    Raises:
        ConfigError: as a family raised it, which says what is wrong.
        VLLMValidationError: a 400 for the client, as vLLM's own for arguments that its processor
            does not take.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # whatever a processor raises at what it does not expect
        if not mm_kwargs:
            raise
        raise refusal(
            f"mm_processor_kwargs is {shown(repr(dict(mm_kwargs)))}, with which images of this "
            f"model cannot be counted ({error}); allowed: arguments that its processor takes and "
            "that leave the size of a patch as it is",
            parameter="mm_processor_kwargs",
        ) from error


def count(
    info: PrunedInfo,
    asked: Sequence[Asked],
    requested: object,
    mm_kwargs: Mapping[str, object],
    output: MultiModalInput,
) -> None:
    """Fill in what is kept, from the placeholders of a prompt.

    Args:
        info: the model's.
        asked: the images and the videos.
        requested: the request's settings.
        mm_kwargs: its arguments for the processor.
        output: vLLM's, with placeholders.

    Raises:
        VLLMValidationError: a 400 for the client: a video may not keep so many.
        RuntimeError: this vLLM builds prompts in another way.
    """
    for each in asked:
        places = output["mm_placeholders"][each.modality]
        each.kept = [place.get_num_embeds() for place in places]
        if each.modality == VIDEO:
            _count_videos(info, each, requested, output)
        elif each.plans:
            _count_images(info, each, mm_kwargs)
        elif info.family.own_marks:
            each.kept = [
                rows - others
                for rows, others in zip(each.kept, _separators(info, each, mm_kwargs), strict=True)
            ]


def _count_images(info: PrunedInfo, asked: Asked, mm_kwargs: Mapping[str, object]) -> None:
    """Check the placeholders of pruned images, and subtract those of separators from `kept`."""
    with _taken(mm_kwargs):
        more = _separators(info, asked, mm_kwargs)
        check_counts(asked, more)
    asked.kept = [rows - others for rows, others in zip(asked.kept, more, strict=True)]


def _separators(info: PrunedInfo, asked: Asked, mm_kwargs: Mapping[str, object]) -> list[int]:
    return [0 if size is None else info.separators(size, mm_kwargs) for size in asked.sizes]


def _count_videos(
    info: PrunedInfo, asked: Asked, requested: object, output: MultiModalInput
) -> None:
    """Fill in the videos' numbers of tokens, and check what is kept against the limits. Tokens
    between joined frames are subtracted from `kept`."""
    if not asked.plans:
        asked.tokens = [*asked.kept]
        return
    items = [item.get_data() for item in output["mm_kwargs"].require_data()[VIDEO]]
    layouts = [info.video_layout(item) for item in items]
    asked.tokens = [layout.tokens for layout in layouts]
    more = [len(item[PLAN_BETWEEN]) for item in items]
    with answered():
        for config, layout in zip(asked.configs, layouts, strict=True):
            check_video(info.prune_config, requested, config, layout.tokens)
    check_counts(asked, more)
    check_reach(layouts, asked.kept, more)
    asked.kept = [rows - others for rows, others in zip(asked.kept, more, strict=True)]
