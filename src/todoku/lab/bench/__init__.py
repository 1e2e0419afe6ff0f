"""Puts a load on a running system and says what it did: orders a second, latencies, costs."""
