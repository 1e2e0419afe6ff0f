"""Inspect the types of a query's parameters."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from msgspec.inspect import Metadata, Type, UnionType, VarTupleType, type_info


def parameter_types(query: type[Any]) -> Mapping[str, Type]:
    """Return the type of each parameter of a query, by its name."""
    return _inspect(query)  # type: ignore[arg-type]


@cache
def _inspect(query: type[Any]) -> Mapping[str, Type]:
    fields = type_info(query).fields  # type: ignore[attr-defined]
    return {field.encode_name: _bare(field.type) for field in fields}


def value_types(kind: Type) -> tuple[Type, ...]:
    """Return the types that one value of a parameter may have; one that is repeatable has several values."""
    if isinstance(kind, VarTupleType):
        return value_types(_bare(kind.item_type))
    return tuple(map(_bare, kind.types)) if isinstance(kind, UnionType) else (kind,)


def _bare(kind: Type) -> Type:
    """Return a type without what describes it."""
    return _bare(kind.type) if isinstance(kind, Metadata) else kind
