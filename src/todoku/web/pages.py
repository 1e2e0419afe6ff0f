"""HTML pages: API documentation and problem types. They load nothing from other servers."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope

from todoku.web.operations import Api, Endpoint, ExactRoute
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
    """Return the routes of the documents, `/docs`, `/problems` and their static files."""
    problem_pages = {kind.slug: HTMLResponse(_problem_page(kind)) for kind in api.problem_types}

    async def show_problem(scope: Scope, receive: Receive) -> Response:
        slug = scope["path_params"]["slug"]
        if slug not in problem_pages:
            raise Problem(UNKNOWN_ADDRESS, f"No problem type is called {slug!r}: see /problems.")
        return problem_pages[slug]

    return [
        *(
            _fixed(path, Response(encode(document), media_type="application/json"))
            for path, document in documents.items()
        ),
        _fixed("/docs", HTMLResponse(_docs_page(api.title))),
        _fixed("/problems", HTMLResponse(_problems_page(api.problem_types))),
        ExactRoute("/problems/{slug}", Endpoint({"GET": show_problem})),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]


def _fixed(path: str, response: Response) -> ExactRoute:
    async def show(scope: Scope, receive: Receive) -> Response:
        return response

    return ExactRoute(path, Endpoint({"GET": show}))


def _docs_page(title: str) -> str:
    # RapiDoc is in static/; with load-fonts off it loads nothing from other servers.
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<script type="module" src="/static/rapidoc-min.js"></script>
</head>
<body>
<rapi-doc spec-url="/openapi.json" render-style="read" load-fonts="false" theme="light"
  primary-color="#0b63c5" show-header="false" allow-authentication="false"
  allow-server-selection="false" schema-description-expanded="true"></rapi-doc>
</body>
</html>
"""


def _problems_page(kinds: Sequence[ProblemType]) -> str:
    rows = "\n".join(
        f'<tr><td>{kind.status}</td><td><a href="{kind.address}">{kind.slug}</a></td>'
        f"<td>{escape(kind.title)}</td></tr>"
        for kind in kinds
    )
    return _page("Problems", f"<h1>Problems</h1>\n<table>\n{rows}\n</table>")


def _problem_page(kind: ProblemType) -> str:
    return _page(
        kind.title,
        f"<h1>{escape(kind.title)}</h1>\n"
        f"<p><code>{kind.status} {kind.slug}</code></p>\n"
        f"<p>{_prose(kind.meaning)}</p>\n"
        f"<h2>What to do</h2>\n<p>{_prose(kind.advice)}</p>\n"
        '<p><a href="/problems">All problems</a> · <a href="/docs">The API</a></p>',
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
