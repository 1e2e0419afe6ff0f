"""Amounts, times and lists of items read well, and nothing from outside acts on the terminal."""

from datetime import UTC, datetime, timedelta

import pytest

from todoku.cli.words import age, later, money, pieces, printable
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
def test_money_is_shown_in_the_units_of_its_currency(
    minor_units: int, currency: str, shown: str
) -> None:
    assert money(minor_units, currency) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-3, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m"), (7_199, "1h"), (86_400 * 400, "400d")],
)
def test_an_age_is_told_in_one_unit(seconds: float, shown: str) -> None:
    assert age(NOON - timedelta(seconds=seconds), NOON) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "+0 ms"), (0.0154, "+15 ms"), (99.999, "+99999 ms"), (101.2, "+101 s"), (-0.2, "-200 ms")],
)
def test_how_much_later_fits_in_nine_columns(seconds: float, shown: str) -> None:
    assert later(NOON, NOON + timedelta(seconds=seconds)) == shown
    assert len(shown) <= 9


def test_of_many_items_the_first_few_are_named() -> None:
    items = [ShippedItem(product_id=f"p{n}", quantity=1_000) for n in range(1_000)]

    assert pieces(items[:2]) == "p0 ×1,000, p1 ×1,000"
    assert pieces(items).startswith("p0 ×1,000, ")
    assert pieces(items).endswith(" and 992 more")


@pytest.mark.parametrize("text", ["\x1b[31m", "a\nb", "a\rb", "\u202eevil", "\u2028", "\x9b31m"])
def test_what_acts_on_a_terminal_is_replaced(text: str) -> None:
    assert "\N{REPLACEMENT CHARACTER}" in printable(text)
    assert printable(text).isprintable()


def test_japanese_with_its_wide_space_stays_as_it_is() -> None:
    assert printable("東京都 千代田区\u30001-1 ①") == "東京都 千代田区\u30001-1 ①"
