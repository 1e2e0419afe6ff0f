"""HTML pages: API documentation and problem types. They load nothing from other servers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope

import todoku
from todoku.web.openapi import with_server
from todoku.web.operations import Api, Endpoint, ExactRoute
from todoku.web.page_headers import page_response
from todoku.web.prefix import PREFIX
from todoku.web.problems import UNKNOWN_ADDRESS, Problem, ProblemType
from todoku.web.reply import encode

STATIC: Final = Path(__file__).parent / "static"

STYLE: Final = """
body { font: 16px/1.6 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem;
       color: #1c2430; background: #fff }
a { color: #0b63c5 }
td { padding: .15rem 1rem .15rem 0; vertical-align: top }
@media (prefers-color-scheme: dark) {
  body { color: #e4e9f0; background: #14181f }
  a { color: #7ab7ff }
}
"""


def page_routes(api: Api, documents: Mapping[str, Mapping[str, Any]]) -> Sequence[BaseRoute]:
    """Return the routes of the documents, `/`, `/docs`, `/problems` and their static files."""

    async def show_index(scope: Scope, receive: Receive) -> Response:
        prefix = scope.get(PREFIX, "")
        links = {name: prefix + path for name, path in _index_links(documents).items()}
        headers = {"Vary": "Accept"}
        if "text/html" in Headers(scope=scope).get("accept", ""):
            return page_response(_index_page(api.title, links), headers=headers)
        content = {"title": api.title, "version": todoku.__version__, "links": links}
        return Response(encode(content), media_type="application/json", headers=headers)

    return [
        ExactRoute("/", Endpoint({"GET": show_index})),
        *(_document_route(path, document) for path, document in documents.items()),
        _page_route("/docs", lambda prefix: _docs_page(api.title, prefix)),
        *problem_routes(api.problem_types),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]


def problem_routes(problem_types: Sequence[ProblemType]) -> Sequence[ExactRoute]:
    """Return the routes of the pages about problem types."""
    kinds = {kind.slug: kind for kind in problem_types}

    async def show_problem(scope: Scope, receive: Receive) -> Response:
        slug = scope["path_params"]["slug"]
        if slug not in kinds:
            raise Problem(UNKNOWN_ADDRESS, f"No problem type is called {slug!r}: see /problems.")
        return page_response(_problem_page(kinds[slug], scope.get(PREFIX, "")))

    return [
        _page_route("/problems", lambda prefix: _problems_page(problem_types, prefix)),
        ExactRoute("/problems/{slug}", Endpoint({"GET": show_problem})),
    ]


def _document_route(path: str, document: Mapping[str, Any]) -> ExactRoute:
    encoded = encode(document)

    async def show(scope: Scope, receive: Receive) -> Response:
        prefix = scope.get(PREFIX, "")
        relocated = prefix and "openapi" in document
        body = encode(with_server(document, prefix)) if relocated else encoded
        return Response(body, media_type="application/json")

    return ExactRoute(path, Endpoint({"GET": show}))


def _page_route(path: str, render: Callable[[str], str]) -> ExactRoute:
    """Return the route of a page, which is rendered with the path prefix of the service."""

    async def show(scope: Scope, receive: Receive) -> Response:
        return page_response(render(scope.get(PREFIX, "")))

    return ExactRoute(path, Endpoint({"GET": show}))


def _index_links(documents: Iterable[str]) -> dict[str, str]:
    """Return where a newcomer finds what, by name."""
    paths = ["/docs", *documents, "/problems", "/readyz", "/metrics"]
    return {path.strip("/").removesuffix(".json"): path for path in paths}


def _index_page(title: str, links: Mapping[str, str]) -> str:
    items = "\n".join(f'<li><a href="{path}">{name}</a></li>' for name, path in links.items())
    return _page(
        title,
        f"<h1>{escape(title)}</h1>\n<p>Version {todoku.__version__}</p>\n<ul>\n{items}\n</ul>",
    )


def _docs_page(title: str, prefix: str) -> str:
    # RapiDoc is in static/; with load-fonts off it loads nothing from other servers.
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<script type="module" src="{prefix}/static/rapidoc-min.js"></script>
</head>
<body>
<rapi-doc spec-url="{prefix}/openapi.json" render-style="read" load-fonts="false" theme="light"
  primary-color="#0b63c5" show-header="false" allow-authentication="false"
  allow-server-selection="false" schema-description-expanded="true"></rapi-doc>
</body>
</html>
"""


def _problems_page(kinds: Sequence[ProblemType], prefix: str) -> str:
    rows = "\n".join(
        f'<tr><td>{kind.status}</td><td><a href="{prefix}{kind.address}">{kind.slug}</a></td>'
        f"<td>{escape(kind.title)}</td></tr>"
        for kind in kinds
    )
    return _page("Problems", f"<h1>Problems</h1>\n<table>\n{rows}\n</table>")


def _problem_page(kind: ProblemType, prefix: str) -> str:
    return _page(
        kind.title,
        f"<h1>{escape(kind.title)}</h1>\n"
        f"<p><code>{kind.status} {kind.slug}</code></p>\n"
        f"<p>{_prose(kind.meaning)}</p>\n"
        f"<h2>What to do</h2>\n<p>{_prose(kind.advice)}</p>\n"
        f'<p><a href="{prefix}/problems">All problems</a> · <a href="{prefix}/docs">The API</a></p>',
    )


def _prose(text: str) -> str:
    """Return a text as HTML, with text in backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))


def _page(title: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · Todoku</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""
