"""OpenAPI 3.1 document of a service, generated from its operations and structs."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from itertools import groupby
from typing import Any, Final

import msgspec
from msgspec.inspect import EnumType

import todoku
from todoku.identity import ANY, OPEN
from todoku.identity.scopes import own
from todoku.web import conditions, event_streams, idempotency, prefer_wait, problems
from todoku.web.fields import IdempotencyKey, IfMatch, LastEventId, Preference, to_portable
from todoku.web.hosts import OPEN_PATHS
from todoku.web.operations import Api, Operation, SuccessResponse
from todoku.web.parameter_types import parameter_types, value_types
from todoku.web.problems import ProblemDetails, ProblemType

ALWAYS: Final = (problems.MALFORMED_REQUEST, problems.INVALID_PARAMETER, problems.INTERNAL_ERROR)
CLOSED: Final = (
    problems.UNAUTHENTICATED,
    problems.MISSING_SCOPE,
    problems.ISSUER_UNAVAILABLE,
)
CHANGING: Final = (
    problems.REQUEST_TOO_SLOW,
    problems.BODY_TOO_LARGE,
    problems.INVALID_BODY,
    problems.OVERLOADED,
    problems.NEWER_VERSION,
    problems.OUTCOME_UNKNOWN,
)
WITH_BODY: Final = (problems.MALFORMED_JSON, problems.UNSUPPORTED_MEDIA_TYPE)
WITH_KEY: Final = (
    problems.INVALID_IDEMPOTENCY_KEY,
    problems.REQUEST_IN_PROGRESS,
    problems.ANSWER_UNAVAILABLE,
    problems.IDEMPOTENCY_KEY_REUSED,
)
RETRY_AFTER: Final = {
    "Retry-After": {
        "description": "Seconds to wait before the next attempt.",
        "schema": {"type": "integer"},
    }
}


SCHEME: Final = "bearer"
SECURITY_SCHEME: Final = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key (`tdk_…`), or an OIDC access token (JWT) of the issuer in the setting "
    "`oidc_issuer`. With the setting `auth` = `none` anybody may call everything.",
}


def document(api: Api, *, required: bool = True) -> dict[str, Any]:
    """Return the OpenAPI document of an API. Where no credential is `required`, it asks for none."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in api.operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    described = {
        "openapi": "3.1.0",
        "info": {
            "title": api.title,
            "version": todoku.__version__,
            "description": api.description,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(_all_types(api)),
            "securitySchemes": {SCHEME: SECURITY_SCHEME},
        },
    }
    _add_types(described)
    return described if required else _open_to_anybody(described)


def _open_to_anybody(described: dict[str, Any]) -> dict[str, Any]:
    del described["components"]["securitySchemes"]
    for operations in described["paths"].values():
        for operation in operations.values():
            operation["security"] = []
    return described


def with_server(document: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the document of a service that a proxy publishes under a path prefix."""
    return {**document, "servers": [{"url": prefix or "/"}]}


def _add_types(part: Any) -> None:
    """Add to each schema what generators need and msgspec leaves out.

    Enumerations get their type; integers a format, without which some generators take 32 bits;
    patterns the syntax of other languages.
    """
    if isinstance(part, list):
        for item in part:
            _add_types(item)
    if not isinstance(part, dict):
        return
    if part.get("type") == "integer":
        part.setdefault("format", "int32" if part.get("maximum", 2**31) < 2**31 else "int64")
    if "type" not in part and all(isinstance(it, str) for it in part.get("enum", [0])):
        part["type"] = "string"
    if isinstance(part.get("pattern"), str):
        part["pattern"] = to_portable(part["pattern"])
    for name, item in part.items():
        if name not in ("example", "examples", "default", "value"):
            _add_types(item)


def problems_of(operation: Operation) -> tuple[ProblemType, ...]:
    """Return every problem type of an operation, ordered by status."""
    kinds = (
        *ALWAYS,
        *(() if operation.path in OPEN_PATHS else (problems.RATE_LIMITED,)),
        *(() if operation.scope == OPEN else CLOSED),
        *(CHANGING if operation.changes else ()),
        *(WITH_BODY if operation.body else ()),
        *(WITH_KEY if _takes_key(operation) else ()),
        *((problems.INVALID_IF_MATCH,) if operation.conditional else ()),
        *((problems.TOO_MANY_STREAMS,) if operation.streams else ()),
        *operation.problems,
    )
    return tuple(sorted(dict.fromkeys(kinds), key=lambda kind: kind.status))


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "security": _security(operation),
        "description": operation.description,
        "parameters": [
            *_path_parameters(operation),
            *_query_parameters(operation),
            *_header_parameters(operation),
        ],
        "responses": {
            **{
                str(response.status): _success_response(response)
                for response in operation.responses
            },
            **_problem_responses(problems_of(operation)),
        },
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {
                "application/json": {
                    "schema": _reference(operation.body),
                    "examples": {
                        name: {"value": value} for name, value in operation.examples.items()
                    },
                }
            },
        }
    return described


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    """Return the scopes each of which suffices; none where anybody may call the operation."""
    if operation.scope == OPEN:
        return []
    if operation.scope == ANY:
        return [{SCHEME: []}]
    scopes = (operation.scope, own(operation.scope)) if operation.own else (operation.scope,)
    return [{SCHEME: [scope]} for scope in scopes]


def _path_parameters(operation: Operation) -> Iterable[dict[str, Any]]:
    for name, kind in operation.path_parameters.items():
        yield _parameter(name, "path", msgspec.json.schema(kind), required=True)


def _query_parameters(operation: Operation) -> Iterable[dict[str, Any]]:
    properties = _schemas([operation.query])[operation.query.__name__]["properties"]
    for name, schema in properties.items():
        yield _parameter(name, "query", schema, required=False)


def _header_parameters(operation: Operation) -> Iterable[dict[str, Any]]:
    if _takes_key(operation):
        schema = msgspec.json.schema(IdempotencyKey)
        yield _parameter(idempotency.HEADER, "header", schema, required=False)
    if operation.waits:
        schema = msgspec.json.schema(Preference)
        yield _parameter(prefer_wait.HEADER, "header", schema, required=False)
    if operation.streams:
        schema = msgspec.json.schema(LastEventId)
        yield _parameter(event_streams.HEADER, "header", schema, required=False)
    if operation.conditional:
        schema = msgspec.json.schema(IfMatch)
        yield _parameter(conditions.HEADER, "header", schema, required=False)


def _takes_key(operation: Operation) -> bool:
    return operation.method in idempotency.METHODS


def _parameter(
    name: str, place: str, schema: Mapping[str, Any], *, required: bool
) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": required,
        "description": schema.get("description", ""),
        "schema": schema,
    }


def _success_response(response: SuccessResponse) -> dict[str, Any]:
    return {
        "description": response.description,
        "headers": {
            name: {"description": description, "schema": {"type": "string"}}
            for name, description in response.headers.items()
        },
        **_content(response),
    }


def _content(response: SuccessResponse) -> dict[str, Any]:
    if response.content is None:
        return {}
    return {"content": {response.media_type: {"schema": _reference(response.content)}}}


def _problem_responses(kinds: Iterable[ProblemType]) -> dict[str, Any]:
    return {
        str(status): _problem_response(status, list(group))
        for status, group in groupby(kinds, key=lambda kind: kind.status)
    }


def _problem_response(status: int, kinds: list[ProblemType]) -> dict[str, Any]:
    return {
        "description": " · ".join(kind.title for kind in kinds),
        "headers": RETRY_AFTER if _may_be_repeated(status, kinds) else {},
        "content": {
            problems.CONTENT_TYPE: {
                "schema": _reference(ProblemDetails),
                "examples": {kind.slug: _problem_example(kind) for kind in kinds},
            }
        },
    }


def _may_be_repeated(status: int, kinds: list[ProblemType]) -> bool:
    repeatable = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)
    return status in repeatable or problems.REQUEST_IN_PROGRESS in kinds


def _problem_example(kind: ProblemType) -> dict[str, Any]:
    value = ProblemDetails(
        type=kind.address, title=kind.title, status=kind.status, detail=kind.advice
    )
    return {"summary": kind.title, "value": msgspec.to_builtins(value)}


def _all_types(api: Api) -> set[type[Any]]:
    types: set[type[Any]] = {ProblemDetails}
    for operation in api.operations:
        types |= {response.content for response in operation.responses if response.content}
        types |= {operation.body} if operation.body else set()
        types |= set(_enumerations(operation.query))
    return types


def _enumerations(query: type[Any]) -> Iterable[type[Any]]:
    """Yield the enumerations that a query's parameters refer to by name."""
    for kind in parameter_types(query).values():
        yield from (each.cls for each in value_types(kind) if isinstance(each, EnumType))


def _schemas(types: Iterable[type[Any]]) -> dict[str, Any]:
    ordered = sorted(types, key=lambda kind: kind.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template=_REFERENCE)
    return components


_REFERENCE: Final = "#/components/schemas/{name}"


def _reference(kind: type[Any]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(name=kind.__name__)}
