"""`todoku docs`: print the documentation, which is part of the program."""

from collections.abc import Mapping
from typing import Annotated

from cyclopts import Parameter

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.formatting import printable
from todoku.cli.options import ItemsMax, JsonLines
from todoku.cli.output import KEY, TEXT, cells, console, note, suggest, table, write_line
from todoku.cli.streams import to_json
from todoku.documentation import Page, documentation, find, search

PASSAGES = 20
CANDIDATES_MAX = 8


def docs(
    page: Annotated[str | None, Parameter(show_default=False)] = None,
    /,
    *,
    search_for: Annotated[str | None, Parameter(name="--search", show_default=False)] = None,
    limit: ItemsMax = PASSAGES,
    json: JsonLines = False,
) -> ExitCode:
    """List the pages of the documentation, print one, or search them.

    The pages are part of the program: nothing is fetched. They are Markdown.

    For example:

        todoku docs
        todoku docs dead-letters
        todoku docs 47
        todoku docs --search "dead letter" --limit 5

    Parameters
    ----------
    page
        The page to print: its name in the list, the end of it, or the number of
        a decision.
    search_for
        List the sections that contain all these words, the best first.
    limit
        The maximum number of sections that a search lists.
    """
    pages = documentation()
    if not pages:
        raise CommandFailed("this installation has no documentation: install the wheel of Todoku.")
    if page is not None and search_for is not None:
        raise CommandFailed(
            "name a page, or search all of them with --search, not both.", exit_code=ExitCode.USAGE
        )
    if page is not None:
        _print(_only(find(pages, page), page), json=json)
        return ExitCode.OK
    if search_for is not None:
        return _search(pages, search_for, limit, json=json)
    _list(pages, json=json)
    return ExitCode.OK


def _only(found: list[Page], wanted: str) -> Page:
    if len(found) == 1:
        return found[0]
    shown = printable(wanted)
    if found:
        names = ", ".join(each.name for each in found[:CANDIDATES_MAX])
        more = "" if len(found) <= CANDIDATES_MAX else f" and {len(found) - CANDIDATES_MAX} more"
        what = f"{shown!r} may be {names}{more}: name one of them."
    else:
        what = (
            f"there is no page {shown!r}. `todoku docs` lists all, `todoku docs --search` looks"
            " for words in them."
        )
    raise CommandFailed(what, exit_code=ExitCode.USAGE)


def _print(page: Page, *, json: bool) -> None:
    if json:
        write_line(to_json(page._asdict()))
    else:
        print(page.text.rstrip("\n"))


def _list(pages: Mapping[str, Page], *, json: bool) -> None:
    if json:
        for page in pages.values():
            write_line(
                to_json({name: getattr(page, name) for name in ("name", "title", "summary")})
            )
        return
    rows = table(KEY("page"), TEXT("about"))
    for page in pages.values():
        rows.add_row(*cells(page.name, page.title))
    console().print(rows)
    suggest("todoku docs reliability", "read one")


def _search(pages: Mapping[str, Page], text: str, limit: int, *, json: bool) -> ExitCode:
    passages = search(pages, text)
    if json:
        for passage in passages[:limit]:
            write_line(to_json(passage._asdict()))
        return ExitCode.OK
    if not passages:
        note(f"no section contains all words of {printable(text)!r}")
        return ExitCode.OK
    rows = table(KEY("page"), TEXT("section"), TEXT("line"))
    for passage in passages[:limit]:
        rows.add_row(*cells(passage.page, passage.heading, passage.line))
    console().print(rows)
    if len(passages) > limit:
        note(f"{len(passages)} sections contain it; --limit shows more than {limit}")
    return ExitCode.OK
