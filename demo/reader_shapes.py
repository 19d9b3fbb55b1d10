"""Shapes of the demo models that read documents; see `shapes`."""

from dataclasses import dataclass
from typing import ClassVar

from shapes import AnyShape


@dataclass(frozen=True, slots=True)
class ReaderShape(AnyShape):
    """A model that reads documents, of true geometry, narrow."""

    text_layers: int
    seed: int


class GlmOcrShape(ReaderShape):
    writer: ClassVar = "glm_ocr"


class PaddleShape(ReaderShape):
    writer: ClassVar = "paddle"


class DotsShape(ReaderShape):
    writer: ClassVar = "dots"


class LightOnShape(ReaderShape):
    writer: ClassVar = "lighton"


class DeepseekOcrShape(ReaderShape):
    writer: ClassVar = "deepseek_ocr"
