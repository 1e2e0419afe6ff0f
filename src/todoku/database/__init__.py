"""Hide the differences between SQLite and PostgreSQL.

`Database` provides transactions and snapshots as SQLAlchemy connections; `Timestamp`, `Integer64` and
`table` describe tables for both; `migrate` upgrades them; `back_up` copies SQLite databases.
"""

from todoku.database.addresses import file_of, is_postgresql
from todoku.database.backup import back_up
from todoku.database.columns import Integer64, Timestamp, table, to_microseconds
from todoku.database.database import Database
from todoku.database.errors import (
    ConstraintViolated,
    DatabaseAbsent,
    DatabaseBroken,
    DatabaseError,
    DatabaseInUse,
    DatabaseUnavailable,
    DatabaseUnsuitable,
    SchemaMismatch,
)
from todoku.database.migrations import (
    current_revision,
    head_revision,
    migrate,
    require_current,
    require_tables,
    schema_differences,
)
from todoku.database.prepared import Many, Query
from todoku.database.statements import (
    among,
    among_pairs,
    bound_idle_time,
    count_up,
    has_several_writers,
    insert_ignoring_duplicates,
    pairs,
    server_time,
    upsert,
)

__all__ = [
    "ConstraintViolated",
    "Database",
    "DatabaseAbsent",
    "DatabaseBroken",
    "DatabaseError",
    "DatabaseInUse",
    "DatabaseUnavailable",
    "DatabaseUnsuitable",
    "Integer64",
    "Many",
    "Query",
    "SchemaMismatch",
    "Timestamp",
    "among",
    "among_pairs",
    "back_up",
    "bound_idle_time",
    "count_up",
    "current_revision",
    "file_of",
    "has_several_writers",
    "head_revision",
    "insert_ignoring_duplicates",
    "is_postgresql",
    "migrate",
    "pairs",
    "require_current",
    "require_tables",
    "schema_differences",
    "server_time",
    "table",
    "to_microseconds",
    "upsert",
]
