"""Configurations that are published beside the weights of MiniCPM-V with a resampler: transformers
has none of these names, so they are loaded from the checkpoint (`--trust-remote-code`). Each is its
decoder's, with the tower's inside."""

from transformers import LlamaConfig, Qwen2Config, Qwen3Config, SiglipVisionConfig


class MiniCPMV2_6Config(Qwen2Config):
    model_type = "minicpmv"

    def __init__(self, vision_config=None, **kwargs):
        self.vision_config = SiglipVisionConfig(**(vision_config or {}))
        super().__init__(**kwargs)


class MiniCPMV4_0Config(LlamaConfig):
    model_type = "minicpmv"

    def __init__(self, vision_config=None, **kwargs):
        self.vision_config = SiglipVisionConfig(**(vision_config or {}))
        super().__init__(**kwargs)


class MiniCPMV4_5Config(Qwen3Config):
    model_type = "minicpmv"

    def __init__(self, vision_config=None, **kwargs):
        self.vision_config = SiglipVisionConfig(**(vision_config or {}))
        super().__init__(**kwargs)
