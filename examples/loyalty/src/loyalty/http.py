"""Points over HTTP."""

from typing import Annotated

import msgspec

from loyalty.service import points_of
from todoku.contracts import Personal
from todoku.web import Api, Backend, Call, Operation, Reply, SuccessResponse


class Points(msgspec.Struct, frozen=True, rename="camel"):
    """The points of a customer; 0 for one who has completed no order."""

    user_id: Annotated[str, Personal]
    points: int


def loyalty_api(backend: Backend) -> Api:
    """Return the operations of the loyalty service."""

    async def show(call: Call) -> Reply:
        user_id = call.path["userId"]
        return Reply(200, Points(user_id, await backend.read(points_of, user_id)))

    get_points = Operation(
        id="getPoints",
        method="GET",
        scope="loyalty:read",
        path="/points/{userId}",
        path_parameters={"userId": str},
        summary="Get the points of a customer",
        handle=show,
        responses=[SuccessResponse(status=200, description="The points.", content=Points)],
    )
    return Api(title="Todoku loyalty", description="One point per 100.", operations=[get_points])
