"""HTTP routes of vtprune, a vLLM endpoint plugin: they show the settings, explain what an image
keeps, compare answers under several settings, and serve a page for all of it. They use no engine
internals: they reach the model through `EngineClient.collective_rpc` and vLLM's own handlers."""
