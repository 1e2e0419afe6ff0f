"""Define what orders publishes about API keys, so that every service verifies them by itself."""

from typing import ClassVar

from todoku.events import ApiKeyEvent


class OrdersApiKeyChangedEvent(ApiKeyEvent, frozen=True, kw_only=True, rename="camel"):
    """An API key was created or revoked."""

    subject: ClassVar[str] = "orders.api_key_changed"
    publisher: ClassVar[str] = "orders"
