"""The configuration that InternVL's authors publish beside their weights: transformers has none of
this name, so it is loaded from the checkpoint (`--trust-remote-code`)."""

from transformers import PreTrainedConfig, Qwen2Config


class InternVisionConfig(PreTrainedConfig):
    model_type = "intern_vit_6b"


class InternVLChatConfig(PreTrainedConfig):
    model_type = "internvl_chat"

    def __init__(self, vision_config=None, llm_config=None, **kwargs):
        self.vision_config = InternVisionConfig(**(vision_config or {}))
        self.llm_config = Qwen2Config(**(llm_config or {}))
        super().__init__(**kwargs)
