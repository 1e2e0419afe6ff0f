"""Measures throughput, latency and cost of a system under load."""
