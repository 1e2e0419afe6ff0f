"""The HTTP edge that the services share: operations, problems, health, metrics and documents."""

from todoku.web.application import application
from todoku.web.backend import Backend
from todoku.web.connections import BoundedHttpProtocol
from todoku.web.exchange import Body, Call, Reply
from todoku.web.operations import Answer, Api, Limits, Operation
from todoku.web.problems import Problem, ProblemType

__all__ = [
    "Answer",
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
    "application",
]
