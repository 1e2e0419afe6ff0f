"""`todoku whoami`: say who the services take you for."""

from typing import Any

import msgspec

from todoku.cli.client import client
from todoku.cli.credential import find_credential
from todoku.cli.flags import SYSTEM_HERE, Addresses, settings_to_reach
from todoku.cli.options import Json, Url
from todoku.cli.output import console, grid, write_object
from todoku.cli.responses import CallerDetails


def whoami(*, json: Json = False, url: Url = None, addresses: Addresses = None) -> None:
    """Say who the services take you for, and what you may do.

    The credential is that in TODOKU_KEY, else in the file that TODOKU_KEY_FILE
    names, else the one that `todoku login` has kept. The first service is asked,
    or that at --url.

    For example:

        todoku whoami
        TODOKU_KEY_FILE=keys/prometheus todoku whoami --json
    """
    service = client(SYSTEM_HERE.names[0], url, settings_to_reach(addresses).settings)
    answer = service.get("/whoami")
    caller = service.read(answer, CallerDetails)
    found = find_credential()
    source = None if found is None else found.source
    if json:
        shown = msgspec.json.decode(answer, type=dict[str, Any]) | {"credentialSource": source}
        write_object(msgspec.json.encode(shown))
        return
    console().print(grid(_described(caller, source)))


def _described(caller: CallerDetails, source: str | None) -> list[tuple[str, str]]:
    if caller.auth == "none":
        return [
            (
                "who",
                caller.actor or "nobody in particular: credentials are not looked at (auth = none)",
            ),
            ("may", "everything, like everybody who reaches the service"),
        ]
    key = [("key", caller.key_id)] if caller.key_id is not None else []
    issuer = [("issuer", caller.issuer)] if caller.issuer is not None else []
    return [
        ("who", caller.actor or ""),
        *key,
        *issuer,
        *([("from", source)] if source is not None else []),
        ("may", ", ".join(caller.scopes)),
    ]
