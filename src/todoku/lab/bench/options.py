"""Options of a load."""

import msgspec


class BenchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The load to measure: `items` different products an order out of `products`, one of them in
    every order if `hot`. Without a `rate` it is a closed loop."""

    connections: int
    rate: float | None
    seconds: float | None
    orders: int | None
    items: int
    products: int
    hot: bool
    patience_seconds: float

    @property
    def loop(self) -> str:
        """The kind of load, in words."""
        pace = f"open loop, {self.rate:g} orders a second" if self.rate else "closed loop"
        hot = ", one of them in every order" if self.hot else ""
        return (
            f"{pace}, {self.connections} connections, "
            f"{self.items} items an order of {self.products} products{hot}"
        )
