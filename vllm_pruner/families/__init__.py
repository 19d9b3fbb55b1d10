"""The model families that can be pruned, one a file."""
