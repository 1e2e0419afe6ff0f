"""Keep a copy of all orders in a SQLite file, by reading the feed of their changes.

    python examples/copy_orders.py http://127.0.0.1:8080 copy.db

Kill it whenever you like: what it has read and where it goes on are committed together. Needs Python only.
"""

import argparse
import json
import sqlite3
import time
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

TABLES = """
CREATE TABLE IF NOT EXISTS orders (
    id TEXT PRIMARY KEY, user_id TEXT, total_amount INTEGER, currency TEXT, status TEXT, sequence INTEGER
);
CREATE TABLE IF NOT EXISTS place (id INTEGER PRIMARY KEY CHECK (id = 1), position INTEGER, after TEXT);
"""
# The first event of an order has all that never changes; each event has the status that it led to.
APPLY = """
INSERT INTO orders VALUES (:orderId, :userId, :totalAmount, :currency, :status, :sequence)
ON CONFLICT (id) DO UPDATE SET status = excluded.status, sequence = excluded.sequence
    WHERE excluded.sequence > orders.sequence
"""


def main(url: str, path: str, once: bool = False) -> None:
    """Copy for ever; with `once`, up to the present end of the feed."""
    copy = sqlite3.connect(path)
    copy.executescript(TABLES)
    while True:
        position, after = copy.execute("SELECT position, after FROM place").fetchone() or (0, None)
        try:
            page = read(url, after, wait_seconds=0 if once else 30)
        except HTTPError as error:
            if error.code == 410:  # The orders database was restored: the copy may be ahead of it.
                start_over(copy)
            elif error.code < 500:
                raise
            else:
                time.sleep(1)
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(1)  # The service is restarting.
        else:
            apply(copy, position, page)
            if once and not page["items"]:
                return


def read(url: str, after: str | None, wait_seconds: int) -> dict:
    """Return the events behind the cursor; if there are none, wait for some."""
    query = f"?limit=1000&after={after}" if after else "?limit=1000"
    request = Request(f"{url}/changes{query}", headers={"Prefer": f"wait={wait_seconds}"})
    with urlopen(request, timeout=wait_seconds + 30) as reply:
        return json.load(reply)


def apply(copy: sqlite3.Connection, position: int, page: dict) -> None:
    """Apply events, and save where to go on, in one transaction."""
    with copy:
        for event in page["items"]:
            position += 1
            assert event["position"] == position, "an event is missing"
            of_order = {
                name: event["data"].get(name) for name in ("userId", "totalAmount", "currency")
            }
            copy.execute(APPLY, of_order | {k: event[k] for k in ("orderId", "status", "sequence")})
        copy.execute("INSERT OR REPLACE INTO place VALUES (1, ?, ?)", (position, page["next"]))


def start_over(copy: sqlite3.Connection) -> None:
    """Discard the copy."""
    with copy:
        copy.execute("DELETE FROM orders")
        copy.execute("DELETE FROM place")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Keep a copy of all orders in a SQLite file.")
    arguments.add_argument("url", help="the address of the orders service: http://127.0.0.1:8080")
    arguments.add_argument("path", help="the SQLite file")
    arguments.add_argument("--once", action="store_true", help="end when the copy is up to date")
    main(**vars(arguments.parse_args()))
