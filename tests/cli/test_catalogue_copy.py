"""`todoku up` is ready once orders knows the products of inventory."""

from typing import Any

import msgspec
import pytest
from scripted import Scripted, answering, problem

from todoku.cli.catalogue_copy import has_arrived
from todoku.settings import Settings
from todoku.system import system


def page(*items: dict[str, Any]) -> Scripted:
    return Scripted(msgspec.json.encode({"items": items, "nextCursor": None}))


def settings_of(inventory: str, orders: str) -> Settings:
    """Return settings with services at the ports of these addresses."""
    ports = {
        name: int(url.rpartition(":")[2])
        for name, url in (("inventory", inventory), ("orders", orders))
    }
    return system.settings(inventory_port=ports["inventory"], orders_port=ports["orders"])


@pytest.mark.parametrize(
    ("known", "arrived"),
    [
        ({}, False),
        ({"p": 1}, False),
        ({"p": 1, "q": 6}, False),
        ({"p": 1, "q": 7}, True),
        ({"p": 2, "q": 7, "gone": 1}, True),
    ],
)
def test_catalogue_has_arrived_once_orders_has_each_version(
    known: dict[str, int], arrived: bool
) -> None:
    products = page({"id": "p", "version": 1, "name": "n"}, {"id": "q", "version": 7})
    entries = page(*({"productId": name, "version": n} for name, n in known.items()))
    with answering(products) as inventory, answering(entries) as orders:
        assert has_arrived(settings_of(inventory.url, orders.url)) is arrived


def test_catalogue_of_a_service_that_does_not_answer_has_not_arrived() -> None:
    with answering(problem(503, "not-ready", "t", "d")) as inventory, answering(page()) as orders:
        assert not has_arrived(settings_of(inventory.url, orders.url))


@pytest.mark.parametrize(("status", "slug"), [(401, "unauthenticated"), (403, "missing-scope")])
def test_catalogue_is_not_waited_for_without_the_right_to_see_it(status: int, slug: str) -> None:
    with answering(problem(status, slug, "t", "d")) as inventory, answering(page()) as orders:
        assert has_arrived(settings_of(inventory.url, orders.url))
