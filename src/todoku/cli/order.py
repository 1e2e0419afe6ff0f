"""`todoku order`: place orders, look at them and watch them to their end."""

import re
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from todoku.cli.client import Client, client, segment
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Addresses, Json, Url, settings_from
from todoku.orders.domain import OrderStatus

order = App(name="order", help="Place orders, look at them and watch them to their end.")

STDIN = "-"
