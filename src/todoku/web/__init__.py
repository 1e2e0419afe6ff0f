"""HTTP layer shared by the services: operations, problems, health, metrics and documents."""

from todoku.web.application import application
from todoku.web.backend import Backend
from todoku.web.connections import BoundedHttpProtocol
from todoku.web.exchange import Body, Call, Reply
from todoku.web.operations import Api, Limits, Operation, SuccessResponse
from todoku.web.problems import Problem, ProblemType

__all__ = [
    "Api",
    "Backend",
    "Body",
    "BoundedHttpProtocol",
    "Call",
    "Limits",
    "Operation",
    "Problem",
    "ProblemType",
    "Reply",
    "SuccessResponse",
    "application",
]
