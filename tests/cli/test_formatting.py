"""Formatting of amounts, times, counts and lists; control characters are replaced."""

from datetime import UTC, datetime, timedelta

import pytest

from todoku.cli.formatting import age, counted, item_list, later, money, printable
from todoku.contracts import ShippedItem

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("minor_units", "currency", "shown"),
    [
        (13_000, "JPY", "13,000 JPY"),
        (13_000, "EUR", "130.00 EUR"),
        (5, "USD", "0.05 USD"),
        (1_234, "BHD", "1.234 BHD"),
        (2**53 - 1, "JPY", "9,007,199,254,740,991 JPY"),
    ],
)
def test_money_is_formatted_in_major_units(minor_units: int, currency: str, shown: str) -> None:
    assert money(minor_units, currency) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-3, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m"), (7_199, "1h"), (86_400 * 400, "400d")],
)
def test_age_is_formatted_in_one_unit(seconds: float, shown: str) -> None:
    assert age(NOON - timedelta(seconds=seconds), NOON) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "+0 ms"), (0.0154, "+15 ms"), (99.999, "+99999 ms"), (101.2, "+101 s"), (-0.2, "-200 ms")],
)
def test_time_difference_fits_nine_columns(seconds: float, shown: str) -> None:
    assert later(NOON, NOON + timedelta(seconds=seconds)) == shown
    assert len(shown) <= 9


def test_long_item_list_is_shortened() -> None:
    items = [ShippedItem(product_id=f"p{n}", quantity=1_000) for n in range(1_000)]

    assert item_list(items[:2]) == "p0 ×1,000, p1 ×1,000"
    assert item_list(items).startswith("p0 ×1,000, ")
    assert item_list(items).endswith(" and 992 more")


@pytest.mark.parametrize("text", ["\x1b[31m", "a\nb", "a\rb", "\u202eevil", "\u2028", "\x9b31m"])
def test_control_characters_are_replaced(text: str) -> None:
    assert "\N{REPLACEMENT CHARACTER}" in printable(text)
    assert printable(text).isprintable()


def test_japanese_with_wide_space_is_unchanged() -> None:
    assert printable("東京都 千代田区\u30001-1 ①") == "東京都 千代田区\u30001-1 ①"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 dead letters"),
        (1, "1 dead letter"),
        (2, "2 dead letters"),
        (1_000, "1,000 dead letters"),
    ],
)
def test_counts_have_singular_and_plural(count: int, shown: str) -> None:
    assert counted(count, "dead letter") == shown


def test_irregular_plural_is_given() -> None:
    assert counted(2, "delivery", "deliveries") == "2 deliveries"
