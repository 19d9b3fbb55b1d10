"""The names of vLLM's models and their towers that workers rely on; see `symbols`."""

from __future__ import annotations

from vllm_pruner.compat.symbol import MODEL_PACKAGES, MODELS, Process, Symbol
from vllm_pruner.compat.symbol import symbols_of as _symbols

__all__ = ["GRAPH_METHODS", "MODEL_SYMBOLS"]

_ENGINE = Process.ENGINE
_WORKER = "vllm_pruner.worker"

GRAPH_METHODS = (
    "get_input_modality",
    "get_max_frames_per_video",
    "get_encoder_cudagraph_budget_range",
    "get_encoder_cudagraph_item_specs",
    "select_encoder_cudagraph_items",
    "prepare_encoder_cudagraph_capture_inputs",
    "prepare_encoder_cudagraph_replay_buffers",
    "encoder_cudagraph_forward",
    "encoder_eager_forward",
    "postprocess_encoder_output",
)
"""What vLLM's manager of a tower's CUDA graphs asks a model, besides its
`get_encoder_cudagraph_config`."""


def _of_qwen(module: str, model: str) -> list[Symbol]:
    """Return the names needed of a model with M-RoPE."""
    methods = "_parse_and_validate_image_input embed_multimodal load_weights "
    methods += "get_mrope_input_positions _parse_and_validate_video_input"
    names = [f"{model}.{method}" for method in methods.split()]
    return _symbols(_ENGINE, _WORKER, module, " ".join(names))


def _qwen(
    file: str, model: str, tower: str, of_tower: str = "prepare_encoder_metadata"
) -> list[Symbol]:
    """Return the names needed of a model with M-RoPE and of its tower."""
    module = f"{MODELS}.{file}"
    of_tower = f"{tower}.{of_tower}"
    return [*_of_qwen(module, model), *_symbols(_ENGINE, _WORKER, module, of_tower)]


# fmt: off
MODEL_SYMBOLS: tuple[Symbol, ...] = (
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.vision",
        "get_num_selected_vision_tokens get_vision_encoder_info"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.llava",
        "LlavaForConditionalGeneration._parse_and_validate_image_input "
        "LlavaForConditionalGeneration._image_pixels_to_features "
        "LlavaForConditionalGeneration.embed_multimodal "
        "LlavaForConditionalGeneration.load_weights"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.llava_next",
        "LlavaNextForConditionalGeneration._parse_and_validate_image_input "
        "LlavaNextForConditionalGeneration._image_pixels_to_features "
        "LlavaNextForConditionalGeneration.embed_multimodal "
        "LlavaNextForConditionalGeneration.load_weights"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.llava_onevision",
        "LlavaOnevisionForConditionalGeneration._parse_and_validate_image_input "
        "LlavaOnevisionForConditionalGeneration._parse_and_validate_video_input "
        "LlavaOnevisionForConditionalGeneration._image_pixels_to_features "
        "LlavaOnevisionForConditionalGeneration.embed_multimodal "
        "LlavaOnevisionForConditionalGeneration.load_weights"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.internvl",
        "InternVLChatModel._parse_and_validate_image_input InternVLChatModel.embed_multimodal "
        "InternVLChatModel.load_weights InternVLChatModel.pixel_shuffle"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.skyworkr1v",
        "SkyworkR1VChatModel._parse_and_validate_image_input SkyworkR1VChatModel.embed_multimodal "
        "SkyworkR1VChatModel.load_weights SkyworkR1VChatModel.pixel_shuffle"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.exaone4_5", "EXAONE4_5_VisionAttention.forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.interns1",
        "InternS1ForConditionalGeneration._parse_and_validate_image_input "
        "InternS1ForConditionalGeneration._parse_and_validate_video_input "
        "InternS1ForConditionalGeneration.embed_multimodal "
        "InternS1ForConditionalGeneration.load_weights "
        "InternS1ForConditionalGeneration.pixel_shuffle"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.idefics3",
        "Idefics3ForConditionalGeneration._parse_and_validate_image_input "
        "Idefics3ForConditionalGeneration.embed_multimodal "
        "Idefics3ForConditionalGeneration.load_weights Idefics3Connector.pixel_shuffle"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.cohere2_vision",
        "Cohere2VisionForConditionalGeneration._parse_and_validate_image_input "
        "Cohere2VisionForConditionalGeneration.embed_multimodal "
        "Cohere2VisionForConditionalGeneration.load_weights "
        "Cohere2VisionMultiModalProjector.forward Cohere2VisionMultiModalProjector.pixel_shuffle"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.molmo2",
        "Molmo2ForConditionalGeneration._parse_and_validate_image_input "
        "Molmo2ForConditionalGeneration.embed_multimodal "
        "Molmo2ForConditionalGeneration.load_weights "
        "Molmo2VisionBackbone.encode_image Molmo2VisionBackbone.forward "
        "ImagePoolingAttention.forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.deepseek_ocr",
        "DeepseekOCRForCausalLM._parse_and_validate_image_input "
        "DeepseekOCRForCausalLM.embed_multimodal DeepseekOCRForCausalLM.load_weights"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.deepencoder",
        "ImageEncoderViT.forward DeepCLIPVisionTransformer.forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.deepseek_vl2", "MlpProjector.forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.mllama4",
        "Llama4ForConditionalGeneration._parse_and_validate_image_input "
        "Llama4ForConditionalGeneration.embed_multimodal "
        "Llama4ForConditionalGeneration.load_weights "
        "Llama4MultiModalProjector.forward Llama4VisionModel.forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.gemma3_mm",
        "Gemma3ForConditionalGeneration._parse_and_validate_image_input "
        "Gemma3ForConditionalGeneration.embed_multimodal "
        "Gemma3ForConditionalGeneration.load_weights "
        "Gemma3MultiModalProjector.forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.gemma4_mm",
        "Gemma4ForConditionalGeneration._parse_and_validate_image_input "
        "Gemma4ForConditionalGeneration._process_image_input "
        "Gemma4ForConditionalGeneration.embed_multimodal "
        "Gemma4ForConditionalGeneration.load_weights Gemma4MultimodalEmbedder.forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.mistral3",
        "Mistral3ForConditionalGeneration._parse_and_validate_image_input "
        "Mistral3ForConditionalGeneration.embed_multimodal "
        "Mistral3ForConditionalGeneration.load_weights "
        "Mistral3MultiModalProjector.forward Mistral3PatchMerger.forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.pixtral",
        "PixtralHFVisionModel.forward PixtralHFAttention.forward "
        "PixtralForConditionalGeneration._parse_and_validate_image_input "
        "PixtralForConditionalGeneration._process_image_input "
        "PixtralForConditionalGeneration.embed_multimodal "
        "PixtralForConditionalGeneration.load_weights VisionTransformer.forward Attention.forward "
        "VisionLanguageAdapter.forward PatchMerger.forward PatchMerger.permute "
        "position_ids_in_meshgrid PixtralHFTransformer.forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.lightonocr",
        "LightOnOCRForConditionalGeneration._parse_and_validate_image_input "
        "LightOnOCRForConditionalGeneration.embed_multimodal "
        "LightOnOCRForConditionalGeneration.load_weights"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.kimi_vl",
        "KimiVLForConditionalGeneration._parse_and_validate_image_input "
        "KimiVLForConditionalGeneration.embed_multimodal "
        "KimiVLForConditionalGeneration.load_weights KimiVLMultiModalProjector.forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.moonvit",
        "MoonVitPretrainedModel.prepare_encoder_metadata MoonVitPretrainedModel.forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.kimi_k25",
        "KimiK25ForConditionalGeneration.embed_multimodal "
        "KimiK25ForConditionalGeneration.load_weights"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.kimi_k25_vit",
        "MoonViT3dEncoder.prepare_encoder_metadata MoonViT3dPretrainedModel.forward "
        "KimiK25MultiModalProjector.forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODEL_PACKAGES}.deepseek_v4.common.vl_model",
        "DeepseekV4ForConditionalGeneration._parse_and_validate_image_input "
        "DeepseekV4ForConditionalGeneration.embed_multimodal "
        "DeepseekV4ForConditionalGeneration.load_weights", first=(0, 32)),
    *_symbols(_ENGINE, f"{_WORKER}.deepseek_tower", f"{MODEL_PACKAGES}.deepseek_v4.common.vision",
        "build_packed_vit_metadata DeepseekV4ViT.forward_packed", first=(0, 32)),
    *_symbols(_ENGINE, f"{_WORKER}.deepseek_tower", f"{MODELS}.utils", "StageMissingLayer"),
    *_symbols(_ENGINE, _WORKER, f"{MODEL_PACKAGES}.kimi_k3",
        "KimiK3ForConditionalGeneration.embed_multimodal "
        "KimiK3ForConditionalGeneration.load_weights"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.minicpmv",
        "MiniCPMVBaseModel.embed_multimodal MiniCPMVBaseModel.load_weights "
        "MiniCPMV2_6.get_vision_hidden_states MiniCPMV4_0.get_vision_hidden_states "
        "MiniCPMV4_5.get_vision_hidden_states Resampler2_5.forward Resampler4_5.forward",
        first=(0, 32)),
    *_symbols(_ENGINE, _WORKER, "vllm.model_executor.layers.resampler", "BaseResampler",
        first=(0, 32)),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.minicpmv4_6",
        "MiniCPMV4_6ForConditionalGeneration.get_vision_hidden_states "
        "MiniCPMV4_6ForConditionalGeneration.embed_multimodal "
        "MiniCPMV4_6ForConditionalGeneration.load_weights "
        "MiniCPMV4_6ForConditionalGeneration.get_mrope_input_positions "
        "MiniCPMV4_6ViTWindowAttentionMerger.forward MiniCPMV4_6Merger.forward "
        "MiniCPMV4_6DownsampleMLP.forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.minicpmv4_7",
        "MiniCPMV4_7ForConditionalGeneration.get_mrope_input_positions", first=(0, 32)),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.lfm2_vl",
        "Lfm2VLForConditionalGeneration._parse_and_validate_image_input "
        "Lfm2VLForConditionalGeneration.image_pixels_to_features "
        "Lfm2VLForConditionalGeneration.embed_multimodal "
        "Lfm2VLForConditionalGeneration.load_weights Lfm2VLMultiModalProjector.forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.step3_vl",
        "Step3VLForConditionalGeneration._parse_and_validate_image_input "
        "Step3VLForConditionalGeneration.embed_multimodal "
        "Step3VLForConditionalGeneration.load_weights"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.step_vl",
        "PerceptionEncoder.forward PerceptionEncoderVisionAttention.forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.lfm2_siglip2",
        "Siglip2Model.forward Siglip2VisionTransformer.forward Siglip2Attention.forward"),
    *_symbols(_ENGINE, _WORKER, "vllm.forward_context", "set_forward_context"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.idefics2_vision_model",
        "Idefics2VisionEmbeddings.forward Idefics2VisionAttention.forward "
        "Idefics2VisionTransformer.forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.nano_nemotron_vl",
        "NemotronH_Nano_VL_V2._parse_and_validate_image_input "
        "NemotronH_Nano_VL_V2.embed_multimodal NemotronH_Nano_VL_V2.load_weights "
        "NemotronH_Nano_VL_V2.pixel_shuffle NemotronH_Nano_VL_V2.extract_feature "
        "NemotronH_Nano_VL_V2.extract_feature_dynamic"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.radio",
        "RadioModel.forward RadioParallelAttention.forward RadioVisionEncoder.forward "
        "ViTPatchGenerator.forward ViTPatchGenerator.num_skip ViTPatchGenerator.num_cls_tokens "
        "Im2Patches.forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODEL_PACKAGES}.minimax_m3",
        "MiniMaxM3SparseForConditionalGeneration._parse_and_validate_image_input "
        "MiniMaxM3SparseForConditionalGeneration._parse_and_validate_video_input "
        "MiniMaxM3SparseForConditionalGeneration.embed_multimodal "
        "MiniMaxM3SparseForConditionalGeneration.load_weights"),
    *_symbols(_ENGINE, _WORKER, f"{MODEL_PACKAGES}.minimax_m3.common.vision_tower",
        "MiniMaxVLVisionTransformer.prepare_encoder_metadata "
        "MiniMaxVLVisionTransformer._apply_max_frames_limit MiniMaxVLVisionModel.forward "
        "MiniMaxVLAttention.forward"),
    *_qwen("qwen2_vl", "Qwen2VLForConditionalGeneration", "Qwen2VisionTransformer"),
    *_qwen("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VisionTransformer"),
    *_symbols(_ENGINE, f"{_WORKER}.in_tree", f"{MODELS}.qwen2_5_vl",
        "Qwen2_5_VLForConditionalGeneration.iter_mm_grid_thw "
        "Qwen2_5_VLForConditionalGeneration._postprocess_video_embeds_evs", first=(0, 32)),
    *_symbols(_ENGINE, f"{_WORKER}.in_tree", f"{MODELS}.qwen3_vl",
        "Qwen3VLForConditionalGeneration._postprocess_video_embeds_evs", first=(0, 32)),
    *_qwen("qwen3_vl", "Qwen3VLForConditionalGeneration", "Qwen3_VisionTransformer"),
    *_qwen("qwen3_5", "Qwen3_5ForConditionalGeneration", "Qwen3_VisionTransformer"),
    *_of_qwen(f"{MODEL_PACKAGES}.qwen4_exp", "Qwen4ExpForConditionalGeneration"),
    *_qwen("glm4_1v", "Glm4vForConditionalGeneration", "Glm4vVisionTransformer"),
    *_qwen("glm_ocr", "GlmOcrForConditionalGeneration", "GlmOcrVisionTransformer", "rot_pos_emb"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.glm_ocr", "GlmOcrVisionTransformer.forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.keye",
        "KeyeForConditionalGeneration._parse_and_validate_image_input "
        "KeyeForConditionalGeneration.embed_multimodal KeyeForConditionalGeneration.load_weights "
        "KeyeForConditionalGeneration.get_mrope_input_positions Projector.forward "
        "KeyeVisionEmbeddings.forward KeyeVisionEmbeddings.interpolate_pos_encoding "
        "KeyeSiglipEncoder.forward KeyeSiglipEncoderLayer.forward "
        "KeyeSiglipVisionTransformer.forward KeyeSiglipVisionModel.device"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.keye_vl1_5",
        "KeyeVL1_5ForConditionalGeneration._parse_and_validate_image_input "
        "KeyeVL1_5ForConditionalGeneration.embed_multimodal "
        "KeyeVL1_5ForConditionalGeneration.load_weights "
        "KeyeVL1_5ForConditionalGeneration.get_mrope_input_positions KeyeVL1_5Projector.forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.paddleocr_vl",
        "PaddleOCRVLForConditionalGeneration._parse_and_validate_image_input "
        "PaddleOCRVLForConditionalGeneration.embed_multimodal "
        "PaddleOCRVLForConditionalGeneration.load_weights "
        "PaddleOCRVLForConditionalGeneration.get_mrope_input_positions Projector.forward "
        "SiglipVisionEmbeddings.forward SiglipVisionEmbeddings.interpolate_pos_encoding "
        "SiglipEncoder.forward SiglipVisionTransformer.forward SiglipVisionModel.device"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.dots_ocr",
        "DotsOCRForCausalLM._parse_and_validate_image_input DotsOCRForCausalLM.embed_multimodal "
        "DotsOCRForCausalLM.load_weights DotsVisionTransformer.get_pos_ids_by_grid "
        "DotsVisionTransformer.forward DotsVisionTransformer.device DotsVisionTransformer.dtype "
        "DotsVisionBlock.forward DotsVisionAttention.forward"),
    *_qwen("ernie45_vl", "Ernie4_5_VLMoeForConditionalGeneration", "Ernie4_5_VisionTransformer"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.ernie45_vl",
        "Ernie4_5_VisionTransformer.forward Ernie4_5_VisionTransformer.device "
        "Ernie4_5_VisionAttention.forward VariableResolutionResamplerModel.forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODEL_PACKAGES}.glm5next",
        "Glm5NextForConditionalGeneration._parse_and_validate_image_input "
        "Glm5NextForConditionalGeneration._parse_and_validate_video_input "
        "Glm5NextForConditionalGeneration.embed_multimodal "
        "Glm5NextForConditionalGeneration.load_weights"),
    *_symbols(_ENGINE, _WORKER, f"{MODEL_PACKAGES}.glm5next.common.multimodal",
        "Glm5NextVisionTransformer.prepare_encoder_metadata"),
    *_qwen("qwen2_5_omni_thinker", "Qwen2_5OmniThinkerForConditionalGeneration",
        "Qwen2_5_VisionTransformer"),
    *_qwen("qwen3_omni_moe_thinker", "Qwen3OmniMoeThinkerForConditionalGeneration",
        "Qwen3Omni_VisionTransformer", "forward"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.interfaces",
        "SupportsMultiModalPruning.recompute_mrope_positions "
        "SupportsEncoderCudaGraph.get_encoder_cudagraph_config"),
    *_symbols(_ENGINE, _WORKER, f"{MODELS}.interfaces",
        " ".join(f"SupportsEncoderCudaGraph.{name}" for name in GRAPH_METHODS), first=(0, 32)),
    *_symbols(_ENGINE, _WORKER, "vllm.v1.worker.encoder_cudagraph",
        "EncoderCudaGraphManager.execute EncoderCudaGraphManager.token_budgets "
        "EncoderCudaGraphManager.get_num_graphs_to_capture", first=(0, 32)),
    *_symbols(_ENGINE, _WORKER, "vllm.v1.worker.encoder_cudagraph_defs",
        "EncoderCudaGraphConfig EncoderItemSpec EncoderCudaGraphCaptureInputs "
        "EncoderCudaGraphReplayBuffers", first=(0, 32)),
)
# fmt: on
