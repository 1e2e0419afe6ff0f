"""HTTP operation that tells callers who they are taken for."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from todoku.identity import ANY, Caller
from todoku.web.call import Call
from todoku.web.operations import Operation, SuccessResponse
from todoku.web.reply import Reply


class CallerView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Who sends the request, as the credential says. With `auth` = `none` credentials are not looked at, and
    everybody may do everything."""

    auth: Literal["none", "required"]
    actor: str | None
    key_id: Annotated[str | None, Meta(description="The id of the API key; null if there is none.")]
    issuer: Annotated[
        str | None, Meta(description="The issuer of the access token; null if there is none.")
    ]
    scopes: Annotated[tuple[str, ...], Meta(description="What the credential permits.")]


def whoami_operation() -> Operation:
    """Return the operation that tells callers who they are, the same in every service."""
    return Operation(
        id="whoAmI",
        method="GET",
        path="/whoami",
        scope=ANY,
        summary="Get who the service takes you for",
        handle=_show,
        responses=[SuccessResponse(status=200, description="The caller.", content=CallerView)],
    )


async def _show(call: Call) -> Reply:
    caller = call.principal
    if not isinstance(caller, Caller):
        return Reply(200, _nobody(call.context.actor))
    view = CallerView(
        auth="required",
        actor=caller.actor,
        key_id=caller.key_id,
        issuer=caller.issuer,
        scopes=tuple(sorted(caller.scopes)),
    )
    return Reply(200, view)


def _nobody(actor: str | None) -> CallerView:
    return CallerView(auth="none", actor=actor, key_id=None, issuer=None, scopes=())
