"""Images as vLLM's processor has them: Pillow's, arrays and tensors, channels first or last."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from vtprune_evaluate.pages import draw_page

from vllm_pruner.picture import UNSEEN, measure
from vllm_pruner.prompt.pictures import Pictures

PIXELS = draw_page(7, 1).pixels
FORMS: dict[str, Any] = {
    "image": Image.fromarray(PIXELS),
    "array": PIXELS,
    "channels first": PIXELS.transpose(2, 0, 1),
    "fractions": PIXELS.astype(np.float32) / 255,
    "integers": PIXELS.astype(np.int64),
    "one channel": PIXELS[..., :1],
    "rows and columns": PIXELS[..., 0],
    "tensor": torch.from_numpy(PIXELS).permute(2, 0, 1),
    "tensor of fractions": torch.from_numpy(PIXELS).permute(2, 0, 1).float() / 255,
    "brightness as floats": PIXELS.astype(np.float64),
    "tensor of a model's own dtype": torch.from_numpy(PIXELS).permute(2, 0, 1).bfloat16(),
    "tensor of a computation": torch.from_numpy(PIXELS).float().requires_grad_(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_picture_shows_the_same(form: str) -> None:
    assert Pictures().of("page", FORMS[form]) == measure(Image.fromarray(PIXELS))


def test_a_picture_is_looked_at_once_and_known_by_its_identity() -> None:
    pictures = Pictures()
    assert pictures.of("page", None) == UNSEEN
    page = pictures.of("page", FORMS["image"])
    assert page.text > 0.5
    assert pictures.of("page", None) == page
    assert pictures.of("page", Image.new("RGB", (224, 224))) == page
    assert pictures.of("another", Image.new("RGB", (224, 224))) != page
