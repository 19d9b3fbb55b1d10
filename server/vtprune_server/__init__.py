"""HTTP surface of vtprune, a vLLM endpoint plugin: what is set, what an image would keep and why,
the same message at several rates, and a page to look at it all. It knows no engine internals: it
reaches the model through `EngineClient.collective_rpc` and vLLM's own handlers."""
