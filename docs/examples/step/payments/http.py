"""HTTP API of the payments service."""

from typing import Annotated

from msgspec import Meta

from todoku.payments.domain import Payment
from todoku.payments.store import store
from todoku.web import Api, Backend, Call, Operation, Problem, ProblemType, Reply, SuccessResponse
from todoku.web.fields import Uuid
from todoku.web.problems import DATABASE_UNAVAILABLE

UNKNOWN_PAYMENT = ProblemType(
    "unknown-payment",
    404,
    "Unknown payment",
    "No order with this id has a payment.",
    "Use the `id` from the response to POST /orders, and try again after a moment.",
)


def payments_api(backend: Backend) -> Api:
    """Return the operations of the payments service."""

    async def show(call: Call) -> Reply:
        order_id = call.path["orderId"]
        payment = await backend.read(store.find, order_id)
        if payment is None:
            raise Problem(UNKNOWN_PAYMENT, f"There is no payment for order {order_id!r}.")
        return Reply(200, payment)

    return Api(
        title="Todoku payments",
        description="Authorizes the payment for an order, then captures or releases it.",
        operations=[
            Operation(
                id="getPayment",
                method="GET",
                path="/payments/{orderId}",
                scope="payments:read",
                path_parameters={"orderId": Annotated[Uuid, Meta(description="An order's id.")]},
                summary="Read the payment for an order",
                handle=show,
                responses=[
                    SuccessResponse(status=200, description="The payment.", content=Payment)
                ],
                problems=[UNKNOWN_PAYMENT, DATABASE_UNAVAILABLE],
            )
        ],
    )
