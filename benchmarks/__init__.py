"""Benchmarks: each runs both sides in one process and prints a JSON line with their ratio."""
