"""The names of vLLM's models that families and prompts rely on; see `symbols`."""

from __future__ import annotations

from vllm_pruner.compat.symbol import MODEL_PACKAGES, MODEL_PROCESSORS, MODELS, Process, Symbol
from vllm_pruner.compat.symbol import symbols_of as _symbols

__all__ = ["FAMILY_SYMBOLS"]

_ENGINE = Process.ENGINE
_PROCESSING = "vllm.multimodal.processing"
_PROMPT = "vllm_pruner.prompt"

# fmt: off
FAMILY_SYMBOLS: tuple[Symbol, ...] = (
    *_symbols(_ENGINE, _PROMPT, f"{MODELS}.llava", "LlavaProcessingInfo.get_max_image_tokens"),
    *_symbols(_ENGINE, "vllm_pruner.families", "vllm.multimodal",
        "MULTIMODAL_REGISTRY.register_processor MULTIMODAL_REGISTRY.get_processing_info"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.internvl",
        "InternVLChatModel InternVLDummyInputsBuilder "
        "InternVLMultiModalProcessor InternVLProcessingInfo.get_num_image_tokens "
        "InternVLProcessingInfo.get_image_size_with_most_features "
        "InternVLProcessingInfo.get_hf_processor"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODEL_PROCESSORS}.internvl",
        "IMAGENET_MEAN IMAGENET_STD"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.interns1",
        "InternS1DummyInputsBuilder InternS1MultiModalProcessor "
        "InternS1ProcessingInfo.get_image_size_with_most_features "
        "InternS1ProcessingInfo.get_num_frames_with_most_features "
        "InternS1ProcessingInfo.get_hf_processor"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.idefics3",
        "Idefics3ForConditionalGeneration Idefics3DummyInputsBuilder "
        "Idefics3MultiModalProcessor Idefics3ProcessingInfo.get_num_image_tokens "
        "Idefics3ProcessingInfo.get_hf_processor"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.mllama4",
        "Llama4ForConditionalGeneration.get_image_patches_per_chunk Mllama4DummyInputsBuilder "
        "Mllama4MultiModalProcessor._apply_hf_processor_main "
        "Mllama4MultiModalProcessor._get_mm_fields_config "
        "Mllama4ProcessingInfo.get_max_num_tiles Mllama4ProcessingInfo.get_hf_processor "
        "Mllama4ProcessingInfo.get_image_size_with_most_features"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.smolvlm",
        "SmolVLMForConditionalGeneration SmolVLMProcessingInfo"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.skyworkr1v",
        "SkyworkR1VChatModel SkyworkR1VProcessingInfo.get_hf_processor"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.qianfan_ocr",
        "QianfanOCRForConditionalGeneration QianfanOCRProcessingInfo.get_hf_processor"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.internvl",
        "BaseInternVLDummyInputsBuilder BaseInternVLMultiModalProcessor"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.interns2_mobius",
        "InternS2MobiusForConditionalGeneration InternS2MobiusProcessingInfo"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.interns2_preview",
        "InternS2PreviewForConditionalGeneration InternS2PreviewProcessingInfo"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.cosmos3",
        "Cosmos3ForConditionalGeneration"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.exaone4_5",
        "Exaone4_5_ForConditionalGeneration Exaone4_5_ProcessingInfo"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.gemma3_mm",
        "Gemma3ForConditionalGeneration Gemma3DummyInputsBuilder "
        "Gemma3MultiModalProcessor Gemma3ProcessingInfo.get_num_image_tokens "
        "Gemma3ProcessingInfo.get_image_size_with_most_features "
        "Gemma3ProcessingInfo.get_hf_processor"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.gemma4_mm",
        "_SUPPORTED_SOFT_TOKENS _get_max_soft_tokens "
        "Gemma4ForConditionalGeneration.embed_input_ids "
        "Gemma4DummyInputsBuilder.get_dummy_mm_data "
        "Gemma4MultiModalProcessor._apply_hf_processor_main "
        "Gemma4MultiModalProcessor._get_mm_fields_config "
        "Gemma4ProcessingInfo._compute_num_soft_tokens "
        "Gemma4ProcessingInfo.get_mm_max_tokens_per_item"),
    *_symbols(_ENGINE, "vllm_pruner.families", "vllm.multimodal.inputs",
        "MultiModalFieldConfig.batched"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.mistral3",
        "Mistral3DummyInputsBuilder Mistral3MultiModalProcessor "
        "Mistral3HFEncoderInfo.get_patch_grid_size "
        "Mistral3ProcessingInfo.get_vision_encoder_info Mistral3ProcessingInfo.get_hf_processor "
        "Mistral3ProcessingInfo.get_image_size_with_most_features"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.lightonocr",
        "LightOnOCRMultiModalProcessor LightOnOCRProcessingInfo.get_vision_encoder_info "
        "LightOnOCRProcessingInfo.get_image_size_with_most_features"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.pixtral",
        "PixtralDummyInputsBuilder PixtralMultiModalProcessor "
        "PixtralProcessingInfo.get_image_processor PixtralProcessingInfo.get_tokenizer "
        "PixtralProcessingInfo.get_image_size_with_most_features"),
    *_symbols(_ENGINE, _PROMPT, f"{MODELS}.pixtral",
        "PixtralMultiModalProcessor._maybe_apply_prompt_updates "
        "PixtralMultiModalProcessor._get_prompt_updates"),
    *_symbols(_ENGINE, _PROMPT, f"{_PROCESSING}.processor",
        "BaseMultiModalProcessor._maybe_apply_prompt_updates PromptReplacement.target"),
    *_symbols(_ENGINE, _PROMPT, "vllm.tokenizers.mistral", "MistralTokenizer.instruct"),
    *_symbols(_ENGINE, "vllm_pruner.compat", "vllm.renderers.mistral",
        "MistralRenderer.render_messages MistralRenderer.render_messages_async"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODEL_PROCESSORS}.pixtral",
        "MistralCommonImageProcessor.get_number_of_image_patches"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.kimi_vl",
        "KimiVLDummyInputsBuilder.get_dummy_mm_data KimiVLMultiModalProcessor "
        "KimiVLProcessingInfo.image_token_id KimiVLProcessingInfo.get_hf_processor"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.kimi_k25",
        "KimiK25ForConditionalGeneration._parse_and_validate_media_input "
        "KimiK25ForConditionalGeneration.get_encoder_cudagraph_config "
        "KimiK25DummyInputsBuilder.get_dummy_text KimiK25DummyInputsBuilder.get_dummy_mm_data "
        "KimiK25MultiModalProcessor._get_mm_fields_config "
        "KimiK25MultiModalProcessor._get_prompt_updates "
        "KimiK25ProcessingInfo.get_supported_mm_limits KimiK25ProcessingInfo.media_token "
        "KimiK25ProcessingInfo.media_token_id KimiK25ProcessingInfo.image_processor"),
    *_symbols(_ENGINE, "vllm_pruner.families",
        f"{MODEL_PACKAGES}.deepseek_v4.common.mm_preprocess",
        "COMPRESS_PAD_TO IMAGE_SENTINEL_BASE_ID IMAGE_SENTINEL_TOKEN_NAMES safe_resize "
        "DeepseekV4VLDummyInputsBuilder "
        "DeepseekV4VLMultiModalProcessor DeepseekV4VLProcessingInfo.get_hf_processor "
        "DeepseekV4VLProcessingInfo.get_image_placeholder_token_id "
        "DeepseekV4VLProcessingInfo.get_image_size_with_most_features "
        "DeepseekV4VLProcessingInfo.get_mm_max_tokens_per_item", first=(0, 32)),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODEL_PACKAGES}.kimi_k3",
        "KimiK3ForConditionalGeneration._parse_and_validate_media_input"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODEL_PACKAGES}.kimi_k3.common.mm_preprocess",
        "KimiK3DummyInputsBuilder.get_dummy_mm_data KimiK3MultiModalProcessor "
        "KimiK3ProcessingInfo.media_token_id KimiK3ProcessingInfo.image_processor"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODEL_PROCESSORS}.kimi_k25_vision_fused",
        "KimiK25FusedVisionProcessor.media_proc_cfg", first=(0, 32)),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.cohere2_vision",
        "Cohere2VisionDummyInputsBuilder Cohere2VisionMultiModalProcessor "
        "Cohere2VisionProcessingInfo.get_num_patches "
        "Cohere2VisionProcessingInfo.get_image_size_with_most_features "
        "Cohere2VisionProcessingInfo.get_hf_processor"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.deepseek_ocr",
        "DeepseekOCRDummyInputsBuilder DeepseekOCRMultiModalProcessor "
        "DeepseekOCRProcessingInfo.get_hf_processor "
        "DeepseekOCRProcessingInfo.get_image_size_with_most_features "
        "DeepseekOCRProcessingInfo.get_num_image_tokens"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODEL_PROCESSORS}.deepseek_ocr",
        "BASE_SIZE CROP_MODE IMAGE_SIZE MAX_CROPS count_tiles"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.molmo2",
        "IMAGE_PROMPT Molmo2DummyInputsBuilder "
        "Molmo2MultiModalProcessor._apply_hf_processor_main "
        "Molmo2MultiModalProcessor._get_mm_fields_config "
        "Molmo2ProcessingInfo.get_hf_processor Molmo2ProcessingInfo.select_tiling "
        "Molmo2ProcessingInfo.get_base_grid_size Molmo2ProcessingInfo.get_patches_grid_size "
        "Molmo2ProcessingInfo.get_image_size_with_most_features"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.lfm2_vl",
        "Lfm2VLDummyInputsBuilder.get_dummy_mm_data "
        "Lfm2VLMultiModalProcessor Lfm2VLProcessingInfo.get_image_processor "
        "Lfm2VLProcessingInfo.smart_resize "
        "Lfm2VLProcessingInfo._is_image_too_large Lfm2VLProcessingInfo._get_grid_layout "
        "Lfm2VLProcessingInfo.get_image_size_with_most_features"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.step3_vl",
        "Step3VLDummyInputsBuilder.get_dummy_mm_data "
        "Step3VLMultiModalProcessor._get_mm_fields_config "
        "Step3VLProcessingInfo.get_image_processor Step3VLProcessingInfo.get_hf_processor "
        "Step3VLProcessingInfo.get_image_size_with_most_features"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODEL_PROCESSORS}.step3_vl",
        "ImagePatcher.get_num_patches"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.minicpmv",
        "MiniCPMVDummyInputsBuilder.get_dummy_mm_data "
        "MiniCPMVMultiModalProcessor._apply_hf_processor_main "
        "MiniCPMVProcessingInfo.get_image_processor "
        "MiniCPMVProcessingInfo.get_image_size_with_most_features"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.minicpmv",
        "MiniCPMV.__new__ MiniCPMV2_6 MiniCPMV4_0 MiniCPMV4_5 get_version_by_config "
        "MiniCPMVProcessingInfo.get_model_version MiniCPMVProcessingInfo.get_sliced_grid "
        "MiniCPMVProcessingInfo.image_pattern MiniCPMVProcessingInfo.video_pattern",
        first=(0, 32)),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.minicpmv4_6",
        "MiniCPMV4_6MultiModalProcessor._get_mm_fields_config MiniCPMV4_6ProcessingInfo"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.minicpmv4_7",
        "MiniCPMV4_7MultiModalProcessor MiniCPMV4_7ProcessingInfo.get_image_max_slice_num",
        first=(0, 32)),
    *_symbols(_ENGINE, "vllm_pruner.families", _PROCESSING,
        "BaseProcessingInfo._merge_and_resolve_mm_processor_kwargs", first=(0, 32)),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODEL_PACKAGES}.minimax_m3.common.mm_preprocess",
        "MiniMaxM3VLDummyInputsBuilder MiniMaxM3VLMultiModalProcessor "
        "MiniMaxM3VLProcessingInfo.get_image_processor MiniMaxM3VLProcessingInfo.IMAGE_TOKEN "
        "MiniMaxM3VLProcessingInfo.VIDEO_TOKEN MiniMaxM3VLProcessingInfo.VISION_START_TOKEN "
        "MiniMaxM3VLProcessingInfo.VISION_END_TOKEN"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODEL_PROCESSORS}.minimax_m3",
        "MAX_RATIO smart_resize MiniMaxM3VLImageProcessor.max_long_side_pixel"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.nano_nemotron_vl",
        "NanoNemotronVLDummyInputsBuilder NanoNemotronVLMultiModalProcessor "
        "NanoNemotronVLProcessingInfo.get_hf_processor "
        "NanoNemotronVLProcessingInfo.get_image_size_with_most_features "
        "NanoNemotronVLProcessingInfo.get_dummy_image_size_and_max_tokens"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODEL_PROCESSORS}.nano_nemotron_vl",
        "AUDIO_CONTEXT AUDIO_END AUDIO_START IMG_CONTEXT IMG_END IMG_START "
        "NanoNemotronVLProcessor.use_dynamic_resolution "
        "NanoNemotronVLProcessor.get_num_image_tokens DynamicResolutionImageTiler.compute_params "
        "DynamicResolutionImageTiler.max_num_tokens_available"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{_PROCESSING}.processor",
        "BaseMultiModalProcessor._get_hf_mm_inputs PromptReplacement.modality"),
    *_symbols(_ENGINE, "vllm_pruner.families", _PROCESSING, "BaseProcessingInfo.get_data_parser"),
    *_symbols(_ENGINE, "vllm_pruner.families", "vllm.multimodal.parse",
        "MultiModalDataParser._get_subparsers MultiModalDataParser._parse_image_data "
        "MultiModalDataParser.is_embeddings MultiModalDataItems.get_items ImageProcessorItems "
        "VisionChunkProcessorItems"),
    *_symbols(_ENGINE, "vllm_pruner.families", "vllm.multimodal.inputs",
        "MultiModalFieldConfig.modality"),
    *_symbols(_ENGINE, "vllm_pruner.families", "vllm.renderers.hf",
        "HfRenderer.use_unified_vision_chunk"),
    *_symbols(_ENGINE, _PROMPT, f"{_PROCESSING}.dummy_inputs",
        "BaseDummyInputsBuilder._get_dummy_images"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.qwen2_vl",
        "Qwen2VLProcessingInfo._get_vision_info Qwen2VLProcessingInfo.get_image_processor "
        "Qwen2VLProcessingInfo.get_image_size_with_most_features Qwen2VLDummyInputsBuilder "
        "Qwen2VLMultiModalProcessor"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.qwen2_5_vl",
        "Qwen2_5_VLDummyInputsBuilder Qwen2_5_VLMultiModalProcessor Qwen2_5_VLProcessingInfo"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.qwen3_vl",
        "Qwen3VLDummyInputsBuilder Qwen3VLMultiModalProcessor Qwen3VLProcessingInfo"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.qwen3_vl_moe",
        "Qwen3VLMoeForConditionalGeneration Qwen3VLMoeProcessingInfo"),
    *_symbols(_ENGINE, "vllm_pruner.families", _PROCESSING,
        "InputProcessingContext.get_merged_mm_kwargs"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.qwen3_5",
        "Qwen3_5MoeForConditionalGeneration Qwen3_5MoeProcessingInfo Qwen3_5ProcessingInfo"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODEL_PACKAGES}.qwen4_exp",
        "Qwen4ExpForConditionalGeneration"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.qwen2_5_omni_thinker",
        "Qwen2_5OmniThinkerForConditionalGeneration Qwen2_5OmniThinkerDummyInputsBuilder "
        "Qwen2_5OmniThinkerMultiModalProcessor Qwen2_5OmniThinkerProcessingInfo.get_hf_config"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.qwen3_omni_moe_thinker",
        "Qwen3OmniMoeThinkerForConditionalGeneration Qwen3OmniMoeThinkerDummyInputsBuilder "
        "Qwen3OmniMoeThinkerMultiModalProcessor Qwen3OmniMoeThinkerProcessingInfo.get_hf_config"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.glm4_1v",
        "Glm4vDummyInputsBuilder Glm4vMoeForConditionalGeneration Glm4vMultiModalProcessor "
        "Glm4vProcessingInfo.get_image_processor "
        "Glm4vProcessingInfo.get_image_size_with_most_features"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.keye",
        "KeyeDummyInputsBuilder KeyeMultiModalProcessor KeyeProcessingInfo.get_image_processor "
        "KeyeProcessingInfo.get_image_size_with_most_features smart_resize"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.keye_vl1_5",
        "KeyeVL1_5DummyInputsBuilder KeyeVL1_5MultiModalProcessor KeyeVL1_5ProcessingInfo"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.paddleocr_vl",
        "PaddleOCRVLDummyInputsBuilder PaddleOCRVLMultiModalProcessor "
        "PaddleOCRVLProcessingInfo.get_image_processor "
        "PaddleOCRVLProcessingInfo.get_image_size_with_most_features "
        "PaddleOCRVLProcessingInfo.get_num_image_tokens smart_resize"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.ernie45_vl",
        "Ernie4_5_VLDummyInputsBuilder Ernie4_5VLMultiModalProcessor "
        "Ernie4_5_VLProcessingInfo.get_hf_processor "
        "Ernie4_5_VLProcessingInfo.get_image_size_with_most_features smart_resize"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.glm_ocr",
        "GlmOcrForConditionalGeneration"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.dots_ocr",
        "DotsOCRDummyInputsBuilder DotsOCRProcessingInfo"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODEL_PACKAGES}.glm5next.common.multimodal",
        "Glm5NextMultiModalProcessor Glm5NextProcessingInfo.get_image_processor "
        "Glm5NextProcessingInfo.get_image_size_with_most_features"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.llava",
        "LlavaForConditionalGeneration LlavaDummyInputsBuilder "
        "LlavaMultiModalProcessor LlavaProcessingInfo"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.llava_next",
        "LlavaNextForConditionalGeneration LlavaNextMultiModalProcessor "
        "LlavaNextProcessingInfo"),
    *_symbols(_ENGINE, "vllm_pruner.families", f"{MODELS}.llava_onevision",
        "LlavaOnevisionDummyInputsBuilder LlavaOnevisionMultiModalProcessor "
        "LlavaOnevisionForConditionalGeneration._merge_image_patch_embeddings "
        "LlavaOnevisionForConditionalGeneration.apply_pooling "
        "LlavaOnevisionProcessingInfo._get_num_unpadded_features "
        "LlavaOnevisionProcessingInfo.get_max_video_tokens "
        "LlavaOnevisionProcessingInfo.get_image_size_with_most_features"),
)
# fmt: on
