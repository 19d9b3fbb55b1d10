"""The configuration that Baidu publishes beside ERNIE-4.5-VL's weights: transformers has another
one of this model, so it is loaded from the checkpoint (`--trust-remote-code`)."""

from transformers import PreTrainedConfig


class ErnieVisionConfig(PreTrainedConfig):
    model_type = "DFNRope_vision_transformer"


class ErnieVLConfig(PreTrainedConfig):
    model_type = "ernie4_5_moe_vl"

    def __init__(self, vision_config=None, **kwargs):
        self.vision_config = ErnieVisionConfig(**(vision_config or {}))
        super().__init__(**kwargs)
