"""What can go wrong between the console and a service."""

from typing import Final

from todoku.web.problems import ProblemType

UNKNOWN_SERVICE: Final = ProblemType(
    "unknown-service",
    404,
    "Unknown service",
    "The console forwards to the services of its system only, and none has this name.",
    "See GET /api for their names.",
)
SERVICE_UNREACHABLE: Final = ProblemType(
    "service-unreachable",
    502,
    "The service cannot be reached",
    "The console, or the MCP server, could not connect to the service, or the connection was lost before the "
    "response. A change may or may not have been made.",
    "Run `todoku doctor`. Look at the result, then send the request again, with the same Idempotency-Key if "
    "it had one.",
)
SERVICE_SLOW: Final = ProblemType(
    "service-slow",
    504,
    "The service did not respond in time",
    "The console is connected to the service, but no response came. A change may or may not have been made.",
    "Run `todoku doctor`. Look at the result, then send the request again, with the same Idempotency-Key if "
    "it had one.",
)

CSRF_TOKEN_MISSING: Final = ProblemType(
    "csrf-token-missing",
    403,
    "The request has no valid CSRF token",
    "A request with the cookie of a session at the console changes something only if it repeats the token of "
    "that session: a page of another site does not know it. Nothing was changed.",
    "Read GET /session, and send its `csrfToken` in the header X-CSRF-Token. Programs send the header "
    "Authorization instead, and need neither.",
)

PROBLEM_TYPES: Final = (UNKNOWN_SERVICE, CSRF_TOKEN_MISSING, SERVICE_UNREACHABLE, SERVICE_SLOW)
