"""Shapes of the demo models: LLaVA-1.5's pipeline (336 pixels, patch 14, 576 tokens), narrower."""

from dataclasses import dataclass

IMAGE_SIZE, PATCH_SIZE, HEAD_SIZE = 336, 14, 64


@dataclass(frozen=True, slots=True)
class Shape:
    """What differs between the models."""

    vision_width: int
    vision_layers: int
    text_width: int
    text_layers: int
    text_mlp: int
    tower: str = "clip"
    dtype: str = "float32"
    seed: int | None = 0
    """None: no weights; served with `--load-format dummy`."""

    @property
    def strategy(self) -> str:
        """CLIP's class token is dropped; SigLIP has none."""
        return "default" if self.tower == "clip" else "full"


SHAPES = {
    "demo": Shape(128, 4, 256, 2, 704),
    "demo-siglip": Shape(128, 4, 256, 2, 704, tower="siglip", seed=1),
    # 201 M parameters in the decoder, 3 M in the tower: prefill costs enough to be measured.
    "bench": Shape(192, 6, 1024, 16, 2560, dtype="bfloat16", seed=None),
}
