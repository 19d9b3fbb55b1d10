"""What pruning needs to know about a model family: one record for prompt and worker alike.

The two halves run in different processes and must agree on every count, so both read the same
`Family`: it is a class attribute of the vLLM classes that they extend. Neither half knows a family
by name. Everything here follows from the model's configuration and the image's size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vllm_pruner import methods
from vllm_pruner.layout.cuts import Cut, cut_frames, cut_runs
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.defaults import DEFAULT_METHOD, DEFAULT_RATE
from vllm_pruner.settings.errors import ConfigError, SettingError

if TYPE_CHECKING:
    import torch

    from vllm_pruner.layout.layout import Layout
    from vllm_pruner.methods.base import Method
    from vllm_pruner.settings.server import ServerConfig
    from vllm_pruner.tower import EncoderImage, Tower

__all__ = ["Family", "Videos"]


@dataclass(frozen=True, slots=True)
class Videos:
    """How a family's videos are pruned. A video is one item with one budget."""

    item_layout: Callable[[Any, Mapping[str, Any]], Layout]
    """`item_layout(hf_config, item)`: the layout of one processed video, given the tensors of its
    fields. Its tokens equal the placeholders that vLLM inserts for the unpruned video."""

    items: Callable[[Any, Any], list[EncoderImage]]
    """`items(hf_config, video_input)`: the videos in a batch, as vLLM's
    `_parse_and_validate_video_input` returns it."""

    cut: Cut = cut_runs
    """The `cut` of a video: `cut_frames` if other tokens separate its frames. See also `joins`."""

    frame_mark: str | None = None
    """Name in `hf_config` of the token that precedes the tokens of a frame, if frames are `apart`
    and positions have several dimensions."""

    token: str = "video_token_id"
    """Name in `hf_config` of the token that stands for a video in a prompt."""

    in_tree: bool = False
    """Whether vLLM itself can prune these videos (`--video-pruning-rate`) beside pruned images."""

    @property
    def apart(self) -> bool:
        """Whether other tokens separate the frames of a video."""
        return self.cut is cut_frames

    def joins(self, config: PruneConfig) -> bool:
        """Return whether frames that stand `apart` become one run: the method gives each a share
        that is not known when the prompt is written."""
        return self.apart and not config.off and methods.compares_frames(config.method)


@dataclass(frozen=True, slots=True)
class Family:
    """One model family. `info` is vLLM's `BaseProcessingInfo` of the model, `hf_config` the
    configuration of the whole model, which `info.get_hf_config()` returns too."""

    name: str

    largest: Callable[[Any], Layout]
    """`largest(info)`: the layout with the most tokens, with which vLLM profiles memory. Raises
    `ConfigError` if this model cannot be pruned."""

    layout: Callable[[Any, int, int, Mapping[str, object]], Layout]
    """`layout(info, height, width, mm_kwargs)`: the layout of an image of that size in pixels under
    a request's processor arguments. Its tokens equal the placeholders that vLLM inserts for the
    unpruned image, but for `own_marks`."""

    images: Callable[[Any, Any], list[EncoderImage]]
    """`images(hf_config, image_input)`: the images in a batch, as vLLM's
    `_parse_and_validate_image_input` returns it, without crops that only pad the batch."""

    tower: Callable[[Any], Tower]
    """`tower(model)`: the `Tower` of a vLLM model whose weights are loaded."""

    seen: Callable[[Any, Mapping[str, Any]], torch.Tensor]
    """`seen(hf_config, item)`: the tower's input for one processed image, to show to a person:
    `[crops, 3, height, width]`, the base crop first; normalised floats, or bytes if the device
    normalises."""

    check_method: Callable[[Any, Method], None]
    """`check_method(hf_config, method)`: raises `ConfigError` if this model cannot serve the
    method."""

    cut: Cut = cut_runs
    """The `cut` of an image."""

    merger: bool | Callable[[Any], bool] = False
    """Whether the tower, or what follows it, merges several patches into a token. A function of
    `hf_config` if that differs between models."""

    separators: Callable[[Layout], int] | None = None
    """`separators(layout)`: how many rows of its own, such as row breaks, the model's `placed`
    inserts among the kept rows of an image. `cut` has placeholders for them; they are not part of
    the budget. None if there are none."""

    own_marks: bool = False
    """Whether vLLM has such rows in unpruned images too, so that to it they are placeholders: the
    processor then leaves them out where a plan counts."""

    default_method: str = DEFAULT_METHOD
    """The method if the operator names none."""

    default_rate: float = DEFAULT_RATE
    """Fraction removed if the operator sets neither a rate nor a number of tokens, nor the floor
    `content`, which has a rate of its own."""

    one_layout: bool = False
    """Whether all images have the `largest` layout, whatever their size."""

    captured: bool = False
    """Whether the model is a `CapturedModel`, whose tower can run as CUDA graphs."""

    byte_pixels: bool = False
    """Whether an image's pixels are one field `pixel_values`, `[..., 3, height, width]`, that HF's
    image processor normalises as its last step; then they may go to the engine as bytes."""

    captured_unasked: bool = True
    """Whether a `captured` model's tower runs as CUDA graphs by default; if False, only under
    vLLM's `cudagraph_mm_encoder`."""

    encodes_some: bool = False
    """Whether the tower can encode some of an image's tokens alone (`ThinTower`), for methods that
    choose `before_tower`."""

    stock_captured: bool = False
    """Whether vLLM's own class runs its tower as CUDA graphs under `cudagraph_mm_encoder`; then the
    model is a `ReplayedModel`."""

    item_layout: Callable[[Any, Mapping[str, Any]], Layout] | None = None
    """`item_layout(hf_config, item)`: the layout of one processed image, given the tensors of its
    fields. For models with M-RoPE; None for one-dimensional positions."""

    image_token: str = "image_token_id"
    """Name in `hf_config` of the placeholder of an image, one for each of its tokens."""

    marks: tuple[str, ...] = ()
    """Names in `hf_config` of the tokens that the chat template puts around an image. They are not
    part of the text that asks about it."""

    videos: Videos | None = None
    """How videos are pruned; None if they can only be served unpruned, which the operator must
    allow."""

    left_in_tree: bool = False
    """Whether vLLM itself can prune videos beside pruned images though `videos` is None."""

    video_marks: tuple[str, ...] = ()
    """Names in `hf_config` of the tokens before and after a video whose frames consist of image
    tokens; empty if they consist of a token of their own."""

    @property
    def one_token(self) -> bool:
        """Whether images and videos have the same placeholder, and no `video_marks` tell them
        apart."""
        return self.videos is not None and self.videos.token == self.image_token

    def serves(self, hf_config: Any, method: Method) -> bool:
        """Return whether this model can serve a method; see `check_served`."""
        try:
            self.check_served(hf_config, method)
        except ConfigError:
            return False
        return True

    def check_served(self, hf_config: Any, method: Method) -> None:
        """Raise `ConfigError` if this model cannot serve the method."""
        if method.before_tower and not self.encodes_some:
            why = ", which prunes before the tower, but this model's tower encodes whole images"
            raise SettingError("method", repr(method.name), "a method that prunes behind it", why)
        self.check_method(hf_config, method)

    def check(self, hf_config: Any, config: PruneConfig) -> None:
        """Raise `ConfigError` if this model cannot serve the method, or has no such importance."""
        self.check_served(hf_config, config.resolved[0])
        merges = self.merger(hf_config) if callable(self.merger) else self.merger
        if config.importance == "merger_norm" and not merges:
            why = f", but {self.name} merges no patches"
            raise SettingError("importance", repr(config.importance), "attention", why)

    @property
    def in_tree(self) -> bool:
        """Whether vLLM itself can prune videos (`--video-pruning-rate`) beside pruned images."""
        return self.left_in_tree or (self.videos is not None and self.videos.in_tree)

    def leaves_graphs(self, config: ServerConfig) -> bool:
        """Return whether all CUDA graphs of the tower are vLLM's own, for what is not pruned: there
        are none of ours, or nothing is pruned unless a request asks for it."""
        ours = self.captured and config.tower_graphs and config.prunes
        return self.stock_captured and not ours

    def rows(self, layout: Layout, kept: int) -> int:
        """Return how many rows the decoder gets for an image of which `kept` tokens are kept."""
        return kept + (self.separators(layout) if self.separators else 0)
