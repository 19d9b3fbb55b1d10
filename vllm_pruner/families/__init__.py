"""The model families that can be pruned, one per file."""
