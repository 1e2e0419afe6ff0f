"""HTTP API of the notifications service."""

from typing import Annotated

from msgspec import Meta

from todoku.notifications.domain import Notification
from todoku.notifications.store import store
from todoku.web import Api, Backend, Call, Operation, Problem, ProblemType, Reply, SuccessResponse
from todoku.web.fields import Uuid
from todoku.web.problems import DATABASE_UNAVAILABLE

UNKNOWN_NOTIFICATION = ProblemType(
    "unknown-notification",
    404,
    "Unknown notification",
    "No order with this id has a notification.",
    "Use the `id` from the response to POST /orders, and try again after a moment.",
)


def notifications_api(backend: Backend) -> Api:
    """Return the operations of the notifications service."""

    async def show(call: Call) -> Reply:
        order_id = call.path["orderId"]
        notification = await backend.read(store.find, order_id)
        if notification is None:
            raise Problem(UNKNOWN_NOTIFICATION, f"Order {order_id!r} has no notification yet.")
        return Reply(200, notification)

    return Api(
        title="Todoku notifications",
        description="Notifications to customers about their orders.",
        operations=[
            Operation(
                id="getNotification",
                method="GET",
                scope="notifications:read",
                path="/notifications/{orderId}",
                path_parameters={"orderId": Annotated[Uuid, Meta(description="An order's id.")]},
                summary="Read the notification about an order",
                handle=show,
                responses=[
                    SuccessResponse(
                        status=200, description="The notification.", content=Notification
                    )
                ],
                problems=[UNKNOWN_NOTIFICATION, DATABASE_UNAVAILABLE],
            )
        ],
    )
