"""Evaluation over HTTP: which answers stay right under pruning, by method, rate and data set."""
