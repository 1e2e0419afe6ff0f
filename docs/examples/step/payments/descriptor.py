"""Describe the payments service."""

from todoku.descriptor import ServiceDescriptor

payments = ServiceDescriptor(
    name="payments",
    package="todoku.payments",
    service="todoku.payments.service:payments_service",
    api="todoku.payments.http:payments_api",
    narration="todoku.payments.narration:NARRATION",
    colour="green",
    audit="todoku.payments.audit:payments_audit",
)
