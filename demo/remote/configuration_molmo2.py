"""The configuration that Ai2 publishes beside Molmo2's weights: transformers has none of this name,
so it is loaded from the checkpoint (`--trust-remote-code`)."""

from transformers import PreTrainedConfig


class Molmo2TextConfig(PreTrainedConfig):
    model_type = "molmo2_text"


class Molmo2Config(PreTrainedConfig):
    model_type = "molmo2"
    sub_configs = {"text_config": Molmo2TextConfig}

    def __init__(self, text_config=None, vit_config=None, adapter_config=None, **kwargs):
        self.text_config = Molmo2TextConfig(**(text_config or {}))
        self.vit_config = PreTrainedConfig(**(vit_config or {}))
        self.adapter_config = PreTrainedConfig(**(adapter_config or {}))
        super().__init__(**kwargs)
