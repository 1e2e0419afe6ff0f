"""Describe the notifications service."""

from todoku.descriptor import ServiceDescriptor

notifications = ServiceDescriptor(
    name="notifications",
    package="todoku.notifications",
    service="todoku.notifications.service:notifications_service",
    api="todoku.notifications.http:notifications_api",
)
