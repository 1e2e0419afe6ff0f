"""Define the errors of a database by how the caller must handle them.

DatabaseError            a bug in this program: wrong SQL, use after close
├── ConstraintViolated   one row does not fit: the same statement fails again, others do not
├── DatabaseUnavailable  locked, full or unreachable: a retry may succeed
├── DatabaseBroken       failing disk or damaged file: stop; a restart may recover
├── DatabaseInUse        another process owns this database
├── DatabaseUnsuitable   the configuration must change
│   └── NotPermitted     the role of the connection may not do this
└── SchemaMismatch       the tables have another version than this program
"""


class DatabaseError(Exception):
    """Base of all errors between this process and its database."""


class ConstraintViolated(DatabaseError):
    """Raised when a row violates a CHECK, a UNIQUE or a type: the same statement fails again."""


class DatabaseUnavailable(DatabaseError):
    """Raised when the database is locked, full, restarting or unreachable.

    Whether a commit in progress succeeded is unknown.
    """


class RowsLocked(DatabaseUnavailable):
    """Raised when another transaction keeps rows locked for longer than `lock_timeout`."""


class DatabaseBroken(DatabaseError):
    """Raised when the disk fails (EIO) or the file is damaged: cached state may be wrong."""


class DatabaseInUse(DatabaseError):
    """Raised when another process owns this database."""


class DatabaseUnsuitable(DatabaseError):
    """Raised when this cannot serve as a database: read-only, no driver, no write-ahead log.

    The message says what to do.
    """


class DatabaseAbsent(DatabaseUnsuitable):
    """Raised when a database that is to be read does not exist."""


class NotPermitted(DatabaseUnsuitable):
    """Raised when the role of the connection may not do this."""


class SchemaMismatch(DatabaseError):
    """Raised when the tables have another version than this program."""
