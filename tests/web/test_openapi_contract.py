"""What the OpenAPI documents say is what the services do, tried with generated requests.

Schemathesis sends what the document allows and what it does not. No answer may be a server error or
differ from what is documented, and nothing that the document forbids may be accepted.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from litestar.types import ASGIApp
from schemathesis.checks import (
    allow_header_conformance,
)

from todoku.engine import Service
from todoku.inventory.http import inventory_api
