"""Define the problem types of the shipping service."""

from todoku.web.problems import ProblemType

UNKNOWN_SHIPMENT = ProblemType(
    "unknown-shipment",
    404,
    "Unknown shipment",
    "No shipment has this id. A shipment is created when an order's stock is reserved.",
    "Find the order's shipment with GET /shipments?orderId=….",
)
