"""Where the visual tokens of an image stand: geometry alone, no vLLM."""
