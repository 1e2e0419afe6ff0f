"""Holds the money for an order, and takes it or lets it go."""
