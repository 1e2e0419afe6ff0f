"""Traces of orders, with OpenTelemetry: off unless the setting `traces` says so.

Nothing here is imported by a process that is not traced.
"""

from todoku.telemetry.service import Telemetry

__all__ = ["Telemetry"]
