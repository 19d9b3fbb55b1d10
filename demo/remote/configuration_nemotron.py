"""The configuration that NVIDIA publishes beside Nemotron Nano VL's weights: transformers has none
of this name, so it is loaded from the checkpoint (`--trust-remote-code`)."""

from transformers import NemotronHConfig, PreTrainedConfig


class RadioVisionConfig(PreTrainedConfig):
    model_type = "radio"


class ParakeetSoundConfig(PreTrainedConfig):
    model_type = "parakeet"


class NemotronVLConfig(PreTrainedConfig):
    model_type = "NemotronH_Nano_VL_V2"

    def __init__(self, vision_config=None, llm_config=None, sound_config=None, **kwargs):
        self.vision_config = RadioVisionConfig(**(vision_config or {}))
        self.text_config = NemotronHConfig(**(llm_config or {}))
        self.sound_config = ParakeetSoundConfig(**sound_config) if sound_config else None
        super().__init__(**kwargs)
