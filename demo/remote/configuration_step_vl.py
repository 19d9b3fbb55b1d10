"""The configuration that StepFun publishes beside Step3-VL's weights: transformers has none of this
name, so it is loaded from the checkpoint (`--trust-remote-code`)."""

from transformers import PreTrainedConfig, Qwen3Config


class StepRoboticsVisionEncoderConfig(PreTrainedConfig):
    model_type = "perception_encoder"


class StepRoboticsConfig(PreTrainedConfig):
    model_type = "step_robotics"
    sub_configs = {"text_config": Qwen3Config}

    def __init__(self, vision_config=None, text_config=None, **kwargs):
        self.vision_config = StepRoboticsVisionEncoderConfig(**(vision_config or {}))
        self.text_config = Qwen3Config(**(text_config or {}))
        self.hidden_size = self.text_config.hidden_size
        super().__init__(**kwargs)
