"""Rewrite a statement about one row, so that PostgreSQL takes the rows of a batch as one array for each
column: a message, a plan and an execution, where each row had its own."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

Column = Callable[[list[Any]], Any]
"""Writes the values of a column as the parameter that is its array."""

_PARAMETER = re.compile(r"%\((\w+)\)s(?:::\w+)?")
_INSERT = re.compile(r"(INSERT INTO [^(]+\([^()]*\)) VALUES \(([^()]*)\)(.*)", re.DOTALL)
_CONFLICT = re.compile(r" ON CONFLICT \(([^()]*)\) DO UPDATE ")
_CHANGE = re.compile(r"(UPDATE \S+ SET .*?|DELETE FROM \S+) WHERE (.*)", re.DOTALL)
_EQUALITY = re.compile(r'(\S+) = given\."(\w+)"')


class ArrayStatement:
    """Hold a statement that takes rows as arrays.

    `key` names the values that tell its rows apart. The statement cannot be used for rows of which two
    have the same key, since the last of them must win. `places` tells where a row has each value.
    """

    def __init__(
        self,
        sql: str,
        columns: Mapping[str, Column],
        key: Sequence[str],
        places: Mapping[str, Any],
    ) -> None:
        self.sql = sql
        self._columns = [(name, places[name], write) for name, write in columns.items()]
        self._key = [places[name] for name in key]

    def takes(self, rows: Sequence[Any]) -> bool:
        """Return whether it means the same as one statement for each row."""
        if not self._key or len(rows) == 1:
            return True
        return len({tuple([row[place] for place in self._key]) for row in rows}) == len(rows)

    def parameters(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Return the rows as arrays."""
        return {name: write([row[place] for row in rows]) for name, place, write in self._columns}


def array_statement(
    compiled: SQLCompiler, dialect: Dialect, places: Mapping[str, Any]
) -> ArrayStatement | None:
    """Return the array form of an INSERT of values, or of an UPDATE or DELETE whose condition is that
    columns are equal to parameters; None for any other statement. Its rows have their values at `places`."""
    types = {name: _type_name(bind.type, dialect) for bind, name in compiled.bind_names.items()}
    sql = _PARAMETER.sub(lambda found: f'given."{found[1]}"', str(compiled)).replace("\n", " ")
    columns = {name: _COLUMNS.get(type_, list) for name, type_ in types.items()}
    if insert := _INSERT.fullmatch(sql):
        head, values, conflict = insert.groups()
        key = _CONFLICT.match(conflict)
        sql = f"{head} SELECT {values} FROM {_given(types)}{conflict}"  # nosec B608
        return ArrayStatement(sql, columns, key[1].split(", ") if key else (), places)
    if change := _CHANGE.fullmatch(sql):
        head, condition = change.groups()
        equalities = [_EQUALITY.fullmatch(part) for part in condition.split(" AND ")]
        if all(equalities):
            found = [each.groups() for each in equalities if each]
            return _change(head, found, types, columns, places)
    return None


def _change(
    head: str,
    equalities: Sequence[Sequence[str]],
    types: Mapping[str, str],
    columns: Mapping[str, Column],
    places: Mapping[str, Any],
) -> ArrayStatement | None:
    """Build an UPDATE or DELETE. Its rows are found through the index of the first column, once for each
    value, whatever the planner believes about the size of the table."""
    column, name = equalities[0]
    among = f"{column} = ANY (%({name})s::{types[name]}[])"
    given = _given(types)
    if len(types) == 1:
        return ArrayStatement(f"{head} WHERE {among}", columns, (), places)
    if head.startswith("DELETE"):
        whole = ", ".join([column for column, _ in equalities])
        names = ", ".join([f'"{name}"' for _, name in equalities])
        # IS TRUE keeps it from becoming a join.
        rows = f"(({whole}) IN (SELECT {names} FROM {given})) IS TRUE"  # nosec B608
        return ArrayStatement(f"{head} WHERE {among} AND {rows}", columns, (), places)
    if any(types[name] not in _SAME for _, name in equalities):
        return None
    same = [f'{column} {_SAME[types[name]]} = given."{name}"' for column, name in equalities]
    sql = f"{head} FROM {given} WHERE {among} AND {' AND '.join(same)}"
    return ArrayStatement(sql, columns, [name for _, name in equalities], places)


_SAME = {"TEXT": "|| ''", "BIGINT": "+ 0"}
"""Make an expression of a column, which no index has: otherwise each row would be looked for in the index
once for each row that is given."""


def _given(types: Mapping[str, str]) -> str:
    """Return the rows as a table."""
    arrays = ", ".join([f"%({name})s::{type_}[]" for name, type_ in types.items()])
    names = ", ".join([f'"{name}"' for name in types])
    return f"unnest({arrays}) AS given({names})"


def _type_name(type_: Any, dialect: Dialect) -> str:
    name = str(dialect.type_compiler_instance.process(type_.dialect_impl(dialect)))
    return "TEXT" if name == "VARCHAR" else name


def _integers(values: list[Any]) -> str:
    """Write what is no integer in a way that PostgreSQL refuses."""
    return "{" + str(values)[1:-1].replace("None", "NULL") + "}"


def _texts(values: list[Any]) -> str:
    """Escape all values at once, with NUL between them, which text cannot contain."""
    if None in values:
        return _array([value if value is None else _escaped(value) for value in values])
    joined = "\0".join(values)
    if joined.count("\0") != len(values) - 1:
        raise ValueError(NO_NUL)
    return '{"' + joined.replace("\\", "\\\\").replace('"', '\\"').replace("\0", '","') + '"}'


def _escaped(value: str) -> str:
    if "\0" in value:
        raise ValueError(NO_NUL)
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _bytes(values: list[Any]) -> str:
    return _array([value if value is None else "\\\\x" + bytes(value).hex() for value in values])


def _array(escaped: list[str | None]) -> str:
    return "{" + ",".join(["NULL" if each is None else f'"{each}"' for each in escaped]) + "}"


NO_NUL = "text cannot contain NUL characters"

_COLUMNS: Mapping[str, Column] = {
    "BIGINT": _integers,
    "INTEGER": _integers,
    "TEXT": _texts,
    "BYTEA": _bytes,
}
"""How to write the columns of each type. The driver writes other types, value by value."""
