"""Geometry of an image's visual tokens. No vLLM.

- **Layouts**, which `layout` defines: `crop_layout` and for videos `clip_layout` (LLaVA's kin),
  `tile_layout` and `padded_tiles` (InternVL's kin, Llama 4), `grid_layout` (Qwen-VL's kin, and most
  that take pictures of any shape), `paired_rows` (DeepSeek-V4), `two_grids` (Molmo2),
  `fine_then_whole` (DeepSeek-OCR), `tiled_grid` (LFM2-VL, Step3-VL), `sliced_grid` and
  `query_slices` (MiniCPM-V). What some have in common: `patches_alone`, `grids_apart`.
- **Budgets**: `crop_budget` spends one on an image, by `part_budget` where it is in parts, whose
  `shares` both processes know; `newlines` and `newlines_of_many` leave room for newlines.
- **The prompt**: `cuts` shortens it; `joined_frames` are a video's in one run.
- **Rows**: `raster` brings those of the tower in the decoder's order.
- **Positions** of several dimensions: `positions` fills in what `placed_rows` carry, the rest is
  counted on the `unpruned_prompt`.
"""
