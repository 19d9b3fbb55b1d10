"""Configurations that are published beside the weights of models which vLLM builds from the parts
of others: transformers has none of these names, so they are loaded from the checkpoint
(`--trust-remote-code`)."""

from transformers import (
    InternVLConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3_5MoeConfig,
)


class InternS1Config(InternVLConfig):
    model_type = "interns1"


class InternS2PreviewConfig(Qwen3_5MoeConfig):
    model_type = "intern_s2_preview"


class InternS2MobiusConfig(Qwen3_5MoeConfig):
    model_type = "interns2_mobius"


class SkyworkVisionConfig(PreTrainedConfig):
    model_type = "skywork_vit"


class SkyworkChatConfig(PreTrainedConfig):
    model_type = "skywork_chat"

    def __init__(self, vision_config=None, llm_config=None, **kwargs):
        self.vision_config = SkyworkVisionConfig(**(vision_config or {}))
        self.llm_config = Qwen2Config(**(llm_config or {}))
        super().__init__(**kwargs)
