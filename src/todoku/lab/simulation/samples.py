"""Makes JSON that fits a contract, from the types of its fields."""

from random import Random
from typing import Any

from msgspec import inspect

from todoku.events import Event

OPTIONAL_SHARE = 0.5
ITEMS_MAX = 2
NAME = "poison"
"""What every string of a sample begins with: no product or customer of a simulation is called so."""

INSTANT = "2030-01-01T00:00:00Z"


def sample(event: type[Event], key: str, random: Random) -> dict[str, Any]:
    """Return the data of an event about `key`, as what its JSON decodes to."""
    info = inspect.type_info(event)
    assert isinstance(info, inspect.StructType)
    names = {field.name: field.encode_name for field in info.fields}
    return {**_struct(info, random), names[event.key_field]: key}


def _struct(info: inspect.StructType, random: Random) -> dict[str, Any]:
    return {
        field.encode_name: _value(field.type, random)
        for field in info.fields
        if field.required or random.random() < OPTIONAL_SHARE
    }


def _value(info: inspect.Type, random: Random) -> Any:
    match info:
        case inspect.Metadata():
            return _value(info.type, random)
        case inspect.IntType():
            return random.randint(1, 5)
        case inspect.FloatType():
            return random.random()
        case inspect.BoolType():
            return random.random() < OPTIONAL_SHARE
        case inspect.DateTimeType():
            return INSTANT
        case inspect.StructType():
            return _struct(info, random)
        case inspect.VarTupleType() | inspect.ListType():
            return [_value(info.item_type, random) for _ in range(random.randint(1, ITEMS_MAX))]
        case inspect.UnionType():
            return _value(info.types[0], random)
        case inspect.EnumType():
            return next(iter(info.cls)).value
        case inspect.LiteralType():
            return info.values[0]
        case inspect.NoneType():
            return None
        case _:
            return f"{NAME}-{random.getrandbits(32):08x}"
