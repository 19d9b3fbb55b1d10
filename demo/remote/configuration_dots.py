"""The configuration that is published beside dots.ocr's weights: transformers has none, so it is
loaded from the checkpoint (`--trust-remote-code`)."""

from transformers import PreTrainedConfig, Qwen2Config


class DotsVisionConfig(PreTrainedConfig):
    model_type = "dots_vit"


class DotsOCRConfig(Qwen2Config):
    model_type = "dots_ocr"

    def __init__(self, vision_config=None, **kwargs):
        super().__init__(**kwargs)
        self.vision_config = DotsVisionConfig(**(vision_config or {}))
