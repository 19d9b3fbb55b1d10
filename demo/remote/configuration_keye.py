"""Configurations that Kwai publishes beside Keye-VL's weights: transformers has none of these
names, so they are loaded from the checkpoint (`--trust-remote-code`). Each is its decoder's, with
the tower's inside."""

from transformers import PreTrainedConfig, Qwen3Config


class KeyeVisionConfig(PreTrainedConfig):
    model_type = "Keye"


class KeyeConfig(Qwen3Config):
    model_type = "Keye"

    def __init__(self, vision_config=None, **kwargs):
        self.vision_config = KeyeVisionConfig(**(vision_config or {}))
        super().__init__(**kwargs)


class KeyeVL1_5Config(Qwen3Config):
    model_type = "KeyeVL1_5"

    def __init__(self, vision_config=None, **kwargs):
        self.vision_config = KeyeVisionConfig(**(vision_config or {}))
        super().__init__(**kwargs)
