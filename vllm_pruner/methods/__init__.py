"""The built-in methods, one paper a file. `pyproject.toml` lists them as entry points, where
`vllm_pruner.method` finds them beside those of other packages."""
