"""Define the problem types of the orders service."""

from todoku.web.problems import Problem, ProblemType

UNKNOWN_ORDER = ProblemType(
    "unknown-order",
    404,
    "Unknown order",
    "No order has this id.",
    "Use the `id` from the response to POST /orders. If the response was not 201, the order may not "
    "exist: place it again.",
)
NOT_IN_CATALOGUE = ProblemType(
    "not-in-catalogue",
    404,
    "Not in the catalogue",
    "The copy of the catalogue at this service has no such product.",
    "See GET /products/{productId} of inventory. If it has the product, the event is still on its way; "
    "if this service has lost its database, publish the catalogue again: `todoku product publish`.",
)
INVALID_DEADLINE = ProblemType(
    "invalid-deadline",
    422,
    "The deadline is invalid",
    "The `deadline` had passed when the order was to be accepted, or is more than ten years ahead.",
    "Send a later or an earlier `deadline`, or none. Compare your clock with the `time` in GET /readyz.",
)
PRICE_CHANGED = ProblemType(
    "price-changed",
    409,
    "The price is another one",
    "The `price` of a product in the request is not that of the catalogue, and was not until less than 10 s "
    "ago. `prices` has both for each such product: `requestedPrice`, and the `price` of the catalogue. "
    "Nothing was ordered.",
    "Show the customer the `price`, and place the order with it; or leave `price` out for the one of the "
    "catalogue, whatever it is.",
)
PRICE_UNKNOWN = ProblemType(
    "price-unknown",
    409,
    "The price is unknown",
    "A product has no `price` in the request, and is not in the catalogue.",
    "Check the id of the product: see GET /catalogue. A product that was just created is there within a "
    "moment. Or send the `price` that the customer saw.",
)
PRODUCT_NOT_SOLD = ProblemType(
    "product-not-sold",
    409,
    "The product is not sold",
    "A product of the order is archived, or is not in the catalogue and the setting `unknown_products` is "
    "`refuse`.",
    "Place the order without this product: see GET /catalogue. A product that was just created is there "
    "within a moment.",
)
WRONG_CURRENCY = ProblemType(
    "wrong-currency",
    409,
    "The currency is another one",
    "The catalogue has the price of a product in another currency than that of the order.",
    "Leave `currency` out, or send that of the products: see GET /catalogue. Products with prices in several "
    "currencies need an order for each.",
)
INVALID_CANCELLATION = ProblemType(
    "invalid-cancellation",
    422,
    "The pieces to cancel are not in the order",
    "The order does not have the product, or fewer pieces of it are left than are to be cancelled.",
    "Look at `lines` and `changes` in GET /orders/{orderId}, and cancel what is left.",
)
TOO_LATE_TO_CANCEL = ProblemType(
    "too-late-to-cancel",
    409,
    "The order cannot be cancelled any more",
    "The order has ended, or a cancellation of it was refused because the carrier had been called.",
    "Look at `status` and `cancellation` in GET /orders/{orderId}. What is shipped can only be returned.",
)
FEED_RESTARTED = ProblemType(
    "feed-restarted",
    410,
    "The feed has started over",
    "The cursor is from before the orders database was restored. What you have read may not have happened in "
    "the restored database.",
    "Discard your copy, and read the feed from its beginning: GET /changes without `after`.",
)
UNKNOWN_HOLD = ProblemType(
    "unknown-hold",
    404,
    "Unknown hold",
    "The order has no hold with this id.",
    "Use the `id` from the response to POST /orders/{orderId}/holds, or from GET /orders/{orderId}/holds.",
)
UNKNOWN_HOLDER = ProblemType(
    "unknown-holder",
    422,
    "Unknown holder",
    "The `holder` of a hold is none of those that may hold orders: the setting `holders` names them.",
    "Correct `holder`, or add it to the setting. `detail` names those that may hold orders.",
)
INVALID_HOLD = ProblemType(
    "invalid-hold",
    422,
    "The hold is invalid",
    "The `expiresAt` of a hold had passed when it was to be accepted, or is more than ten years ahead.",
    "Send a later or an earlier `expiresAt`, or none. Compare your clock with the `time` in GET /readyz.",
)
TOO_MANY_HOLDS = ProblemType(
    "too-many-holds",
    409,
    "The order has too many holds",
    "An order may have at most 50 holds, those that no longer hold it included.",
    "Look at GET /orders/{orderId}/holds. Let one hold stay open instead of releasing and requesting it.",
)
TOO_LATE_TO_HOLD = ProblemType(
    "too-late-to-hold",
    409,
    "The order cannot be held any more",
    "The order has ended, or something of it was refused because the carrier had been called.",
    "Look at `status` and `holds` in GET /orders/{orderId}. What is shipped can only be returned.",
)
INVALID_ORDER = ProblemType(
    "invalid-order",
    422,
    "The order is invalid",
    "Each field is valid, but not together: a product has two prices, or the total exceeds "
    "2⁵³−1 = 9007199254740991.",
    "Correct what `detail` names, and send the order again.",
)


def unknown_order(order_id: str) -> Problem:
    """Return the problem that no order has this id."""
    return Problem(
        UNKNOWN_ORDER,
        f"No order has the id {order_id!r}: use the id from the response to POST /orders.",
    )
