"""Notifies customers how their orders ended."""
