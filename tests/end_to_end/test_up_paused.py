"""`todoku up --paused` sends nothing before `todoku resume`, whatever is killed meanwhile."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from end_to_end.running import BOUND_SECONDS, PORT_COUNT, Up, up
from todoku.orders.domain import OrderStatus
from todoku.settings import to_environment

ITEM = {"productId": "prod001", "quantity": 1, "price": 5000}


def place(running: Up) -> str:
    orders = running.client.service("orders")
    answer = orders.request("POST", "/orders", {"userId": "user", "items": [ITEM]}, allowed=(201,))
    order_id: str = msgspec.json.decode(answer.body)["id"]
    return order_id


def until_status(running: Up, order_id: str, status: OrderStatus) -> None:
    ends = time.monotonic() + BOUND_SECONDS
    while running.client.order(order_id).status is not status:
        assert time.monotonic() < ends, f"never {status}"
        time.sleep(0.05)


def paused(running: Up) -> list[str]:
    pauses = msgspec.json.decode(running.client.service("shipping").get("/pauses?state=PAUSED"))
    return [each["target"] for each in pauses["items"]]


def test_up_paused_starts_nothing_before_it_is_resumed_once(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    flags = ("--paused", "--carrier-delay-seconds", "0", "--carrier-success-rate", "1")
    with up(tmp_path, free_ports(PORT_COUNT), *flags) as running:
        running.output.until("todoku is ready in ")
        running.output.until("shipping is paused since ")
        running.output.until("before `todoku resume`")
        order_id = place(running)
        until_status(running, order_id, OrderStatus.AWAITING_SHIPMENT)
        running.kill("shipping")
        running.output.until("shipping is ready again")
        assert paused(running) == ["service"]

        subprocess.run(
            [sys.executable, "-m", "todoku", "resume"],
            env=to_environment(running.settings),
            check=True,
        )

        until_status(running, order_id, OrderStatus.COMPLETED)
        running.kill("shipping")
        running.output.until("shipping is ready again", times=2)
        assert paused(running) == [], "a pause of the start is one, however often it starts"
