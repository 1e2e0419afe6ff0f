"""Define the problem types of the orders service."""

from todoku.web.problems import ProblemType

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
INVALID_ORDER = ProblemType(
    "invalid-order",
    422,
    "The order is invalid",
    "Each field is valid, but not together: a product has two prices, or the total exceeds "
    "2⁵³−1 = 9007199254740991.",
    "Correct what `detail` names, and send the order again.",
)
