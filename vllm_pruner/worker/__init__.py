"""The engine's half of pruning: tower, selection, caches. Never imports `prompt`."""
