"""Counters, timers, and the log line that summarises them."""
