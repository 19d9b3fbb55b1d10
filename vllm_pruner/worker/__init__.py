"""The engine's half of pruning: tower, selection, caches. Never imports `prompt`.

`batch_model` says what happens to the images of a batch: begin there. Its parts:

- **Models**, mixins for vLLM's classes: `batch_model`, on it `early_model`, on that `model`, which
  vLLM calls. With CUDA graphs of the tower: `replayed_model`, `captured_model`, `crop_model`. With
  positions of several dimensions: `mrope`, `in_tree`, `canvas`, counted by `unpruned`.
- **Before the tower**: `batches`, `encoder`, and `feature_cache` for what it need not encode.
- **Towers** of crops and tiles: `crop_tower`, `shuffle_tower` (`captured_crops`) and, behind SAM,
  `deep_encoder_tower`; of pictures of any shape whose tower merges patches: `packed_tower`
  (`captured_packed_tower`, `thinned`), `dots_tower`, `glm_ocr_tower`, `minimax_tower`,
  `omni_tower`; or leaves that to the projector: `merged_tower`, `deepseek_tower` (`edge_packing`),
  `ernie_tower`, `keye_tower`, `lighton_tower`, `moon_tower`, `paddle_tower`, `pixtral_tower`,
  `radio_tower`, `siglip2_tower`; and `pooled_tower`, `pooling_tower`, `slice_tower`, `step_tower`,
  `resampler_tower`. `probe` reads their attention, of a packed sequence by `packing`, into
  `columns`; `shrink` makes images smaller.
- **Selection**: `selection`, of unequal images `together`; `guard` and `attempt` for the methods of
  other packages.
- **CUDA graphs** of towers: `tower_graphs`, `row_format`, `stock_graphs`; of selection:
  `selection_graphs`, `selection_shapes`, `selection_buffers`, `recorder`. `warm_up` compiles what
  graphs do not hold; `trial` compares it with its references.
- **What others are told**: `explain`, `coverage`, `savings`.
"""
