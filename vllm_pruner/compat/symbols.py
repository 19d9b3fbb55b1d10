"""Every vLLM name that vtprune relies on, in one table, and where it is looked up.

`versions.check` finds missing names, in the process that needs them and before any request does. It
cannot see that a signature or a meaning has changed; `environment/symbol_trees.py` compares the
source of these names with another release. Names used only in annotations are not listed.
"""

from __future__ import annotations

from vllm_pruner.compat.family_symbols import FAMILY_SYMBOLS
from vllm_pruner.compat.model_symbols import MODEL_SYMBOLS
from vllm_pruner.compat.symbol import (
    MODEL_PACKAGES,
    MODEL_PROCESSORS,
    MODELS,
    OLDEST,
    Process,
    Symbol,
)
from vllm_pruner.compat.symbol import symbols_of as _symbols

__all__ = [
    "MODELS",
    "MODEL_PACKAGES",
    "MODEL_PROCESSORS",
    "OLDEST",
    "SYMBOLS",
    "Process",
    "Symbol",
]

_PROCESSING = "vllm.multimodal.processing"
_OPENAI = "vllm.entrypoints.openai"
_COMPAT, _PROMPT, _WORKER = "vllm_pruner.compat", "vllm_pruner.prompt", "vllm_pruner.worker"
_EVERY, _SERVER, _TRACING, _ENGINE = Process

# fmt: off
SYMBOLS: tuple[Symbol, ...] = (
    *_symbols(_EVERY, f"{_COMPAT}.engine_args", "vllm.engine.arg_utils",
        "EngineArgs.add_cli_args EngineArgs.from_cli_args EngineArgs.create_model_config"),
    *_symbols(_EVERY, f"{_COMPAT}.mrope", "vllm.config.multimodal",
        "MultiModalConfig.is_multimodal_pruning_enabled MultiModalConfig.mm_processor_kwargs"),
    *_symbols(_EVERY, f"{_COMPAT}.in_tree", "vllm.config.multimodal",
        "MultiModalConfig.video_pruning_rate"),
    *_symbols(_EVERY, f"{_COMPAT}.in_tree", "vllm.engine.arg_utils",
        "EngineArgs.video_pruning_rate"),
    *_symbols(_EVERY, f"{_COMPAT}.stock_processor", f"{_PROCESSING}.processor",
        "BaseMultiModalProcessor.apply"),
    *_symbols(_EVERY, f"{_COMPAT}.stock_processor", _PROCESSING,
        "ProcessorInputs.hf_processor_mm_kwargs"),
    *_symbols(_EVERY, "vllm_pruner.plugin", "vllm.exceptions", "VLLMValidationError"),
    *_symbols(_EVERY, f"{_PROMPT}.front_ends", "vllm.envs", "VLLM_USE_RUST_FRONTEND"),
    *_symbols(_EVERY, "vllm_pruner.start", "vllm.platforms", "current_platform"),
    *_symbols(_EVERY, "vllm_pruner.start", "vllm.engine.arg_utils",
        "EngineArgs.data_parallel_size EngineArgs.data_parallel_size_local "
        "EngineArgs.tensor_parallel_size EngineArgs.pipeline_parallel_size "
        "EngineArgs.mm_processor_kwargs EngineArgs.model_class_overrides "
        "EngineArgs.otlp_traces_endpoint EngineArgs.model_impl"),
    *_symbols(_SERVER, f"{_COMPAT}.model_classes", "vllm.config",
        "ModelConfig._maybe_register_model_class_overrides ModelConfig.model_class_overrides"),
    *_symbols(_SERVER, f"{_COMPAT}.model_classes", "vllm.model_executor.model_loader",
        "get_model_architecture"),
    *_symbols(_SERVER, f"{_COMPAT}.model_classes", "vllm.model_executor.model_loader.utils",
        "get_model_architecture _MODEL_ARCH_BY_HASH"),
    *_symbols(_SERVER, f"{_COMPAT}.model_classes", "vllm.model_executor.models",
        "ModelRegistry.models"),
    *_symbols(_SERVER, f"{_PROMPT}.engine_flags", "vllm.engine.arg_utils",
        "EngineArgs.compilation_config EngineArgs.pipeline_parallel_size "
        "EngineArgs.mm_encoder_tp_mode "
        "EngineArgs.tensor_parallel_size EngineArgs.enforce_eager EngineArgs.language_model_only "
        "EngineArgs.enable_tower_connector_lora EngineArgs.enable_lora "
        "EngineArgs.disable_log_stats"),
    *_symbols(_SERVER, f"{_PROMPT}.engine_flags", "vllm.config",
        "CompilationConfig.compile_mm_encoder CompilationConfig.cudagraph_mm_encoder"),
    *_symbols(_SERVER, f"{_COMPAT}.chat", "vllm.renderers.online_renderer",
        "OnlineRenderer.preprocess_chat OnlineRenderer.model_config "
        "OnlineRenderer.trust_request_mm_kwargs"),
    *_symbols(_SERVER, f"{_COMPAT}.chat", f"{_OPENAI}.chat_completion.serving",
        "OpenAIServingChat.create_chat_completion"),
    *_symbols(_SERVER, f"{_COMPAT}.chat", f"{_OPENAI}.responses.serving",
        "OpenAIServingResponses.create_responses "
        "OpenAIServingResponses.responses_full_generator"),
    *_symbols(_SERVER, f"{_COMPAT}.chat", "vllm.entrypoints.generate.base.protocol",
        "validate_request_mm_kwargs"),
    *_symbols(_SERVER, f"{_COMPAT}.chat_batch", f"{_OPENAI}.chat_completion.batch_serving",
        "OpenAIServingChatBatch.render_batch_chat_request "
        "OpenAIServingChatBatch.create_batch_chat_completion"),
    *_symbols(_SERVER, f"{_COMPAT}.completion", f"{_OPENAI}.completion.serving",
        "OpenAIServingCompletion.create_completion"),
    *_symbols(_SERVER, f"{_COMPAT}.pooling", "vllm.entrypoints.pooling.base.serving",
        "PoolingBaseServing._preprocessing"),
    *_symbols(_SERVER, f"{_COMPAT}.pooling", "vllm.entrypoints.pooling.typing",
        "PoolingServeContext.prompt_extras PoolingServeContext.engine_inputs "
        "PoolingServeContext.raw_request"),
    *_symbols(_SERVER, f"{_COMPAT}.rendered", "vllm.entrypoints.scale_out.render.serving",
        "ServingRender._extract_mm_features"),
    *_symbols(_SERVER, f"{_COMPAT}.rendered", "vllm.entrypoints.scale_out.derender.serving",
        "ServingDerender._extract_mm_features"),
    *_symbols(_SERVER, f"{_COMPAT}.rendered",
        "vllm.entrypoints.scale_out.token_in_token_out.serving", "mm_kwargs_from_features"),
    *_symbols(_SERVER, f"{_COMPAT}.messages", "vllm.entrypoints.anthropic.serving",
        "AnthropicServingMessages.create_messages AnthropicServingMessages.count_tokens "
        "AnthropicServingMessages._build_base_request"),
    *_symbols(_SERVER, f"{_COMPAT}.endpoints", "vllm.plugins",
        "load_endpoint_plugins ENDPOINT_PLUGINS_GROUP"),
    *_symbols(_SERVER, f"{_COMPAT}.endpoints", "vllm.envs", "VLLM_PLUGINS"),
    *_symbols(_SERVER, f"{_COMPAT}.processor", "vllm.config",
        "ModelConfig.get_multimodal_config ModelConfig.multimodal_config"),
    *_symbols(_SERVER, f"{_COMPAT}.processor", "vllm.multimodal.cache",
        "MultiModalProcessorOnlyCache BaseMultiModalProcessorCache.clear_cache "
        "BaseMultiModalProcessorCache.is_cached_item "
        "BaseMultiModalProcessorCache.get_and_update_item"),
    *_symbols(_SERVER, f"{_COMPAT}.processor", "vllm.multimodal.parse",
        "ModalityDataItems.get_all_items_for_hash MultiModalDataItems.select"),
    *_symbols(_SERVER, f"{_COMPAT}.delivery", "vllm.v1.engine.core_client",
        "InprocClient.add_request SyncMPClient.add_request AsyncMPClient.add_request_async "
        "DPAsyncMPClient.add_request_async"),
    *_symbols(_SERVER, f"{_COMPAT}.delivery", "vllm.v1.engine", "EngineCoreRequest.mm_features"),
    *_symbols(_SERVER, f"{_COMPAT}.delivery", "vllm.multimodal.inputs",
        "MultiModalFeatureSpec.data MultiModalFeatureSpec.identifier "
        "MultiModalFeatureSpec.mm_hash"),
    *_symbols(_SERVER, f"{_COMPAT}.delivery", "vllm.multimodal.cache",
        "BaseMultiModalProcessorCache.touch_sender_cache_item"),
    *_symbols(_SERVER, f"{_COMPAT}.delivery", "vllm.multimodal.cache",
        "BaseMultiModalProcessorCache.release_sender_touches", first=(0, 32)),
    *_symbols(_SERVER, f"{_COMPAT}.image_header", "vllm.multimodal.media.image",
        "ImageMediaIO.load_bytes"),
    *_symbols(_SERVER, f"{_COMPAT}.image_header", "vllm.multimodal.media.image",
        "open_image", first=(0, 32)),
    *_symbols(_SERVER, f"{_COMPAT}.video_header", "vllm.multimodal.video_decoders.opencv",
        "OpenCVVideoBackendMixin.read_frames", first=(0, 32)),
    *_symbols(_SERVER, f"{_COMPAT}.known_files", "vllm.multimodal.image",
        "open_image", first=(0, 32)),
    *_symbols(_SERVER, f"{_COMPAT}.known_files", "vllm.multimodal.parse",
        "normalize_image", first=(0, 32)),
    *_symbols(_SERVER, f"{_COMPAT}.known_files", "vllm.multimodal.media.base", "MediaWithBytes"),
    *_symbols(_SERVER, f"{_COMPAT}.key_holder",
        "vllm.entrypoints.serve.middleware.authenticate", "AuthenticationMiddleware"),
    *_symbols(_SERVER, f"{_COMPAT}.sent_embeddings", "vllm.multimodal.parse",
        "MultiModalDataParser.embedding_field_sets", first=(0, 32)),
    *_symbols(_SERVER, f"{_COMPAT}.sent_embeddings", "vllm.renderers.chat_utils",
        "PROMPT_EMBEDS_PLACEHOLDER_TOKEN", first=(0, 32)),
    *_symbols(_SERVER, _PROMPT, "vllm.exceptions", "VLLMValidationError"),
    *_symbols(_SERVER, _PROMPT, "vllm.exceptions", "GenerationError", first=(0, 32)),
    *_symbols(_SERVER, _PROMPT, "vllm.multimodal.inputs",
        "MultiModalBatchedField MultiModalFieldElem MultiModalKwargsItem "
        "MultiModalKwargsItems.require_data PlaceholderRange.get_num_embeds"),
    *_symbols(_SERVER, _PROMPT, "vllm.multimodal.parse",
        "ImageEmbeddingItems.get_feature_size DictEmbeddingItems "
        "ImageProcessorItems.get_image_size"),
    *_symbols(_SERVER, _PROMPT, _PROCESSING,
        "BaseProcessingInfo.get_mm_max_tokens_per_item BaseProcessingInfo.get_hf_processor "
        "BaseProcessingInfo.get_hf_config BaseProcessingInfo.get_tokenizer "
        "InputProcessingContext.get_mm_config InputProcessingContext.model_config "
        "InputProcessingContext.call_hf_processor "
        "ProcessorInputs.prompt ProcessorInputs.mm_data_items ProcessorInputs.mm_uuid_items "
        "ProcessorInputs.hf_processor_mm_kwargs ProcessorInputs.cache"),
    *_symbols(_SERVER, _PROMPT, f"{_PROCESSING}.processor",
        "BaseMultiModalProcessor.apply BaseMultiModalProcessor.get_dummy_inputs "
        "BaseMultiModalProcessor._cached_apply_hf_processor "
        "BaseMultiModalProcessor._apply_hf_processor "
        "BaseMultiModalProcessor._apply_hf_processor_main "
        "BaseMultiModalProcessor._call_hf_processor BaseMultiModalProcessor._get_mm_fields_config "
        "ResolvedPromptUpdate.content "
        "PromptUpdateDetails.full PromptUpdateDetails.is_embed MultiModalProcessingResult.kwargs "
        "MultiModalProcessingResult.prompt_updates"),
    *_symbols(_SERVER, _PROMPT, f"{_PROCESSING}.processor",
        "BaseMultiModalProcessor._get_hf_mm_text", first=(0, 32)),
    *_symbols(_SERVER, f"{_COMPAT}.processor", f"{_PROCESSING}.processor",
        "BaseMultiModalProcessor._get_mm_hashes", first=(0, 32)),
    *_symbols(_SERVER, "vtprune_server", f"{_OPENAI}.chat_completion.protocol",
        "ChatCompletionRequest"),
    *_symbols(_SERVER, "vtprune_server", "vllm.entrypoints.serve.engine.protocol",
        "ErrorResponse"),
    *_symbols(_SERVER, "vtprune_server", "vllm.entrypoints.serve.middleware.authenticate",
        "AuthenticationMiddleware.verify_token"),
    *_symbols(_SERVER, "vtprune_server", "vllm.exceptions", "VLLMValidationError"),
    *_symbols(_SERVER, "vtprune_server", "vllm.multimodal.parse", "ImageSize"),
    *_symbols(_SERVER, "vtprune_server", "vllm.multimodal.inputs",
        "MultiModalFieldElem.field BaseMultiModalField.reduce_data"),
    *_symbols(_SERVER, "vtprune_server", "vllm.renderers.base", "BaseRenderer.mm_processor"),
    *_symbols(_SERVER, "vtprune_server", "vllm.envs", "VLLM_API_KEY"),
    *_symbols(_SERVER, f"{_COMPAT}.generate", "vllm.v1.engine.async_llm",
        "AsyncLLM.generate AsyncLLM.collective_rpc AsyncLLM.engine_core"),
    *_symbols(_SERVER, f"{_COMPAT}.generate", "vllm.v1.engine.async_llm",
        "AsyncLLM.get_num_queued_tokens", first=(0, 32)),
    *_symbols(_SERVER, f"{_COMPAT}.generate", "vllm.v1.engine.core_client",
        "AsyncMPClient.call_utility_all_async", first=(0, 32)),
    *_symbols(_SERVER, f"{_COMPAT}.offline", "vllm.v1.engine.llm_engine",
        "LLMEngine.add_request LLMEngine.step"),
    *_symbols(_SERVER, f"{_COMPAT}.offline", "vllm.v1.engine.output_processor",
        "OutputProcessor.has_unfinished_requests"),
    *_symbols(_SERVER, f"{_COMPAT}.offline", "vllm.outputs", "RequestOutput.request_id"),
    *_symbols(_SERVER, f"{_COMPAT}.raw_prompts", "vllm.renderers.base",
        "BaseRenderer.render_cmpl"),
    *_symbols(_SERVER, f"{_COMPAT}.raw_prompts", "vllm.v1.engine.input_processor",
        "InputProcessor.process_inputs"),
    *_symbols(_SERVER, f"{_COMPAT}.raw_prompts", "vllm.v1.engine.async_llm",
        "AsyncLLM.input_processor"),
    *_symbols(_SERVER, f"{_COMPAT}.raw_prompts", "vllm.outputs", "RequestOutput.metrics"),
    *_symbols(_TRACING, f"{_COMPAT}.tracing", "vllm.v1.engine.output_processor",
        "instrument_manual"),
    *_symbols(_TRACING, f"{_COMPAT}.tracing", "vllm.tracing", "SpanAttributes.GEN_AI_REQUEST_ID"),
    *_symbols(_ENGINE, f"{_COMPAT}.adapters", "vllm.lora.layers",
        "VocabParallelEmbeddingWithLoRA.base_layer"),
    *_symbols(_ENGINE, f"{_COMPAT}.worker_methods", "vllm.v1.worker.worker_base",
        "WorkerBase.get_model"),
    *_symbols(_ENGINE, f"{_COMPAT}.new_weights", "vllm.v1.worker.gpu_worker",
        "Worker.reset_encoder_cache Worker.reload_weights Worker.finish_weight_update "
        "Worker.get_model"),
    *_symbols(_ENGINE, f"{_COMPAT}.draft_names", "vllm.v1.spec_decode.llm_base_proposer",
        "SpecDecodeBaseProposer.get_model_name"),
    *_symbols(_ENGINE, f"{_COMPAT}.profile", "vllm.v1.core.encoder_cache_manager",
        "compute_mm_encoder_budget"),
    *_symbols(_ENGINE, f"{_COMPAT}.encoder_graphs", "vllm.config",
        "CompilationConfig.encoder_cudagraph_token_budgets "
        "CompilationConfig.encoder_cudagraph_max_vision_items_per_batch", first=(0, 32)),
    *_symbols(_ENGINE, f"{_COMPAT}.encoder_graphs", "vllm.v1.worker.encoder_cudagraph",
        "EncoderCudaGraphManager.capture EncoderCudaGraphManager.clear "
        "EncoderCudaGraphManager.model EncoderCudaGraphManager.vllm_config "
        "EncoderCudaGraphManager.budget_graphs BudgetGraphMetadata.input_buffers "
        "BudgetGraphMetadata.graph BudgetGraphMetadata.output_buffer", first=(0, 32)),
    *_symbols(_ENGINE, f"{_COMPAT}.tower", "vllm.model_executor.layers.attention",
        "MMEncoderAttention"),
    *_symbols(_ENGINE, f"{_COMPAT}.sequences", "vllm.model_executor.layers.attention",
        "MMEncoderAttention.compute_max_seqlen MMEncoderAttention.maybe_compute_seq_lens "
        "MMEncoderAttention.maybe_recompute_cu_seqlens"),
    *_symbols(_ENGINE, f"{_COMPAT}.sequences", "vllm.model_executor.models.pixtral",
        "_make_packed_sequence_metadata"),
    *_symbols(_ENGINE, _WORKER, "vllm.distributed",
        "get_tp_group get_pp_group get_tensor_model_parallel_world_size "
        "tensor_model_parallel_all_reduce"),
    *_symbols(_ENGINE, _WORKER, "vllm.config", "ParallelConfig.data_parallel_index "
        "ModelConfig.served_model_name ModelConfig.get_inputs_embeds_size"),
    *_symbols(_SERVER, f"{_PROMPT}.serving", "vllm.config", "ModelConfig.served_model_name"),
    *_symbols(_ENGINE, _WORKER, "vllm.model_executor.layers.vocab_parallel_embedding",
        "VocabParallelEmbedding"),
    *_symbols(_ENGINE, f"{_COMPAT}.mrope", "vllm.platforms", "current_platform"),
    *_symbols(_ENGINE, _WORKER, "vllm.multimodal.inputs",
        "PlaceholderRange.offset PlaceholderRange.length MultiModalFeatureSpec.mm_position "
        "MultiModalFeatureSpec.data"),
    *_symbols(_ENGINE, f"{_COMPAT}.mrope", "vllm.v1.worker.gpu_model_runner",
        "GPUModelRunner._init_mrope_positions GPUModelRunner._gather_mm_embeddings"),
    *_symbols(_ENGINE, f"{_COMPAT}.mrope", "vllm.v1.worker.gpu.model_states.mm_pruning",
        "maybe_create_mm_pruner MultiModalPruner.recompute"),
    *MODEL_SYMBOLS,
    *FAMILY_SYMBOLS,
)
# fmt: on
"""The table. An inherited method is listed under the class that defines it. Every private that our
packages call or override must be here: a test walks their source."""
