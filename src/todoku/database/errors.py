"""What can go wrong with a database, in the words of those who must react.

DatabaseError            a mistake in this program: wrong SQL, use after close
├── ConstraintViolated   one row's fault: the same statement fails again, its neighbours do not
├── DatabaseUnavailable  nobody's fault: locked, full, out of reach; the same again may succeed
├── DatabaseBroken       the disk refused or the file is damaged: stop; a fresh start may recover
├── DatabaseInUse        another process owns this database
├── DatabaseUnsuitable   this place cannot serve as a database: somebody must change something
└── SchemaMismatch       the tables are of another version than this program
"""


class DatabaseError(Exception):
    """Something went wrong between this process and its database."""


class ConstraintViolated(DatabaseError):
    """A row broke a CHECK, a UNIQUE or a type: the same statement fails again."""


class DatabaseUnavailable(DatabaseError):
    """The database is locked, full, restarting or out of reach.

    Whether a commit under way went through is unknown.
    """


class DatabaseBroken(DatabaseError):
    """The disk refused (EIO) or the file is damaged: what the process believes may be wrong."""


class DatabaseInUse(DatabaseError):
    """Another process owns this database."""


class DatabaseUnsuitable(DatabaseError):
    """This place cannot serve as a database: read-only, no driver, no write-ahead log.

    The message says what to do.
    """


class SchemaMismatch(DatabaseError):
    """The tables are of another version than this program."""
