"""Evaluation over HTTP: which answers survive pruning, by method, rate and data set."""
