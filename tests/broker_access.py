"""Connects tests to the embedded broker of a data folder, as its operator: who may do everything."""

from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client

from todoku.broker.connection import connection_options
from todoku.broker.permissions import OPERATOR
from todoku.settings import Settings


def operator_options(data_dir: Path) -> dict[str, Any]:
    """Return what nats-py's `connect` takes for the operator of the broker in this folder."""
    return connection_options(Settings(data_dir=data_dir), OPERATOR)


async def connect_as_operator(port: int | str, data_dir: Path) -> Client:
    """Connect to the broker of a data folder."""
    return await nats.connect(f"nats://127.0.0.1:{port}", **operator_options(data_dir))
