"""Options that several commands have, meaning the same in each."""

from typing import Annotated

from cyclopts import Parameter, validators

Json = Annotated[bool, Parameter(negative="", show_default=False, help="Print one JSON object.")]

JsonLines = Annotated[
    bool,
    Parameter(negative="", show_default=False, help="Print one JSON object a line (NDJSON)."),
]

Url = Annotated[
    str | None,
    Parameter(
        help="Where the service is, as http://HOST:PORT; without it, the settings say where.",
        show_default=False,
    ),
]

ItemsMax = Annotated[
    int,
    Parameter(name="--limit", help="How many to list at most.", validator=validators.Number(gte=1)),
]
"""`--limit`: how many rows of a list are wanted."""

SECONDS_MAX = 10**9
"""Some thirty years."""


def _is_a_time(_: type, seconds: float) -> None:
    if not 0 <= seconds <= SECONDS_MAX:  # So is what is not a number.
        raise ValueError(f"Must be from 0 to {SECONDS_MAX:,}.")


Seconds = Annotated[float, Parameter(validator=_is_a_time)]
"""How long something may take."""
