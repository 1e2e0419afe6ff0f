"""Define the problem types of the inventory service."""

from todoku.web.problems import ProblemType

UNKNOWN_PRODUCT = ProblemType(
    "unknown-product",
    404,
    "Unknown product",
    "No product has this id.",
    "See GET /products, or create the product with PUT /products/{productId}.",
)
STOCK_NOT_SETTABLE = ProblemType(
    "stock-not-settable",
    409,
    "The stock of an existing product cannot be set",
    "`stockQuantity` is the initial stock of a new product. This product exists, and its stock "
    "changes only through the ledger.",
    "Omit `stockQuantity`; add stock with POST /products/{productId}/restock.",
)
STOCK_IN_USE = ProblemType(
    "stock-in-use",
    409,
    "The pieces are reserved",
    "The correction would leave fewer pieces on hand than are reserved for orders. Nothing was changed.",
    "Take out fewer pieces, or cancel orders first: GET /products/{productId}/reservations lists those that "
    "hold the product.",
)
TOO_MUCH_STOCK = ProblemType(
    "too-much-stock",
    409,
    "The stock would be too large",
    "The stock on hand would exceed 2⁵³−1 = 9007199254740991, the largest integer that every JSON "
    "parser represents exactly.",
    "Add fewer pieces.",
)
PRODUCT_CHANGED = ProblemType(
    "product-changed",
    412,
    "The product was changed meanwhile",
    "The product has none of the entity tags in the header If-Match: what the catalogue says about it was "
    "changed since, or there is no such product. Stock movements do not count. Nothing was changed.",
    "Get the product again, decide on what it is now, and send its new `ETag`.",
)
