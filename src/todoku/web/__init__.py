"""HTTP layer shared by the services: operations, problems, health, metrics and documents."""

from todoku.events import Context
from todoku.web.application import application
from todoku.web.backend import Backend
from todoku.web.body import Body
from todoku.web.call import Call
from todoku.web.connections import BoundedHttpProtocol
from todoku.web.event_streams import EventStream, ServerSentEvent
from todoku.web.operations import Api, Limits, Operation, SuccessResponse
from todoku.web.problems import Problem, ProblemType
from todoku.web.reply import Reply

__all__ = [
    "Api",
    "Backend",
    "Body",
    "BoundedHttpProtocol",
    "Call",
    "Context",
    "EventStream",
    "Limits",
    "Operation",
    "Problem",
    "ProblemType",
    "Reply",
    "ServerSentEvent",
    "SuccessResponse",
    "application",
]
