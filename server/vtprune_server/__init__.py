"""HTTP surface of vtprune: routes, metrics and the playground, as a vLLM endpoint plugin.

Nothing is served from here yet; requests go to vLLM's own OpenAI-compatible routes.
"""
