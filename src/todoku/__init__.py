"""Todoku (届く, "to arrive"): an order-fulfilment backend that never loses an order."""

from importlib.metadata import version

__version__ = version("todoku")
