"""Say to a service who decides a command."""

from todoku.cli.client import ServiceClient
from todoku.cli.options import login_name
from todoku.cli.responses import CallerDetails


def who(by: str | None, service: ServiceClient) -> str | None:
    """Return who decides; None if the credential says it to this service. One that does not look at
    credentials (auth = none) needs a name even if one is sent. Raises `CommandFailed`."""
    if by or not service.has_key:
        return by or login_name()
    caller = service.read(service.get("/whoami"), CallerDetails)
    return login_name() if caller.auth == "none" else None
