"""The API server's half of pruning: placeholders, plans, usage. Never imports `worker`."""
