"""Counters, timers, and the log line that sums them up."""
