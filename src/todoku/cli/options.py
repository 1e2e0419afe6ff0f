"""Options shared by several commands, with the same meaning in each."""

import getpass
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, Token, validators

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode

Flag = Annotated[bool, Parameter(negative="", show_default=False)]

Texts = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]
"""A flag that may be repeated."""

Json = Annotated[bool, Parameter(negative="", show_default=False, help="Print one JSON object.")]

JsonLines = Annotated[
    bool,
    Parameter(negative="", show_default=False, help="Print one JSON object per line (NDJSON)."),
]

Url = Annotated[
    str | None,
    Parameter(
        help="The address of the service, http://HOST:PORT; default: from the settings.",
        show_default=False,
    ),
]

ItemsMax = Annotated[
    int,
    Parameter(
        name="--limit", help="The maximum number of rows.", validator=validators.Number(gte=1)
    ),
]
"""`--limit`: the maximum number of rows of a list."""

By = Annotated[
    str | None,
    Parameter(help="Who decided this; default: your login name.", show_default=False),
]


def login_name() -> str:
    """Return the user's name on this machine. Raises `CommandFailed` where the user has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:  # in a container the user may have no name
        raise CommandFailed("give your name with --by.", exit_code=ExitCode.USAGE) from error


SECONDS_MAX = 10**9
"""About thirty years."""


def _require_duration(_: type, seconds: float | None) -> None:
    if seconds is not None and not 0 <= seconds <= SECONDS_MAX:  # NaN fails here too.
        raise ValueError(f"Must be from 0 to {SECONDS_MAX:,}.")


Seconds = Annotated[float, Parameter(validator=_require_duration)]
"""A duration in seconds."""


def _require_share(_: type, share: float) -> None:
    if not 0 <= share <= 1:  # NaN fails here too.
        raise ValueError("Must be from 0 to 1.")


Share = Annotated[float, Parameter(validator=_require_share)]
"""A part of a whole."""


def _folder(_: type, tokens: Sequence[Token]) -> Path:
    [token] = tokens
    if not token.value:  # Such as a variable that is not set: `Path` would take it for this folder.
        raise ValueError("Must not be empty: write . for the present folder.")
    return Path(token.value)


Folder = Annotated[Path, Parameter(converter=_folder)]
"""A folder that a command writes."""
