"""Todoku (届く, "to arrive"): an order-fulfilment backend that never loses an order."""


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Only who asks pays: reading it takes as long as starting Python.
    from importlib.metadata import version

    return version(__name__)
