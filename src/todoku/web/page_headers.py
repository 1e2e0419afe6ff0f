"""Headers that tell browsers what a page may do: load nothing from other servers, and be in no frame."""

from collections.abc import Mapping
from typing import Final

from starlette.responses import HTMLResponse

NO_SNIFFING: Final = ("X-Content-Type-Options", "nosniff")
"""On every response: a browser takes it for what its Content-Type says."""

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

PAGE_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    NO_SNIFFING[0]: NO_SNIFFING[1],
}


def page_response(html: str, headers: Mapping[str, str] | None = None) -> HTMLResponse:
    """Return a page with the headers of all pages, and its own."""
    return HTMLResponse(html, headers={**PAGE_HEADERS, **(headers or {})})
