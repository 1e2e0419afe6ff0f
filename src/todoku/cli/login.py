"""`todoku login` and `todoku logout`: keep a credential for the commands of this user."""

import getpass
import os
import sys

from todoku.cli.client import client
from todoku.cli.credential import checked, forget, keep
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import SYSTEM_HERE, Addresses, settings_to_reach
from todoku.cli.options import Url
from todoku.cli.output import console, note
from todoku.cli.responses import CallerDetails
from todoku.settings.loading import KEY_FILE_VARIABLE, KEY_VARIABLE

SHOWN_AS = "the key that was typed"


def login(*, url: Url = None, addresses: Addresses = None) -> None:
    """Keep an API key or an access token for later commands.

    It is typed at a prompt, which does not show it, or read from standard input;
    a command line would be in the list of processes. The first service is asked
    whether it is valid, or that at --url. It is kept in a file that only you can
    read, ~/.config/todoku/key, and sent to every service that you call; TODOKU_KEY
    and TODOKU_KEY_FILE come before it. `todoku logout` deletes the file.

    For example:

        todoku login
        todoku login --url https://shop.example < key
    """
    key = checked(_typed(), SHOWN_AS)
    service = client(SYSTEM_HERE.names[0], url, settings_to_reach(addresses).settings, key=key)
    caller = service.read(service.get("/whoami"), CallerDetails)
    if caller.auth == "none":
        raise CommandFailed(
            f"no credential is looked at (auth = none): everybody may do everything at {service.url}.\n"
            "Nothing is kept.",
            exit_code=ExitCode.REFUSED,
        )
    path = keep(key)
    console().print(f"You are {caller.actor}. The credential is kept in {path}.", soft_wrap=True)
    for variable in (KEY_VARIABLE, KEY_FILE_VARIABLE):
        if os.environ.get(variable):
            note(f"{variable} is set, and comes before it: unset it.")


def logout() -> None:
    """Delete the credential that `todoku login` has kept.

    It stays valid: an operator revokes a key with `todoku key revoke`.

    For example:

        todoku logout
    """
    path = forget()
    console().print(f"{path} is deleted." if path else "No credential is kept.", soft_wrap=True)


def _typed() -> str:
    try:
        if sys.stdin.isatty():
            return getpass.getpass("Key or access token: ").strip()
        return sys.stdin.read(20_000).strip()
    except KeyboardInterrupt:
        print(file=sys.stderr)  # The line of the prompt ends.
        raise
    except (EOFError, UnicodeDecodeError) as error:
        raise CommandFailed("no key was typed.", exit_code=ExitCode.USAGE) from error
