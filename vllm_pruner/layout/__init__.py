"""Geometry of an image's visual tokens. No vLLM."""
