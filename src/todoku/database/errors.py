"""What can go wrong with a database, in the words of those who must react.

DatabaseError
├── ConstraintViolated    one row's fault: the same statement fails again; its neighbours are innocent
├── DatabaseUnavailable   nobody's fault: locked, restarting, out of reach; the same again may succeed
├── DatabaseBroken        the disk refused or the file is damaged: stop, and let a fresh start recover
├── DatabaseInUse         another process owns this database
└── SchemaMismatch        the tables are of another version than this program
"""


class DatabaseError(Exception):
    """Something went wrong between this process and its database."""


class ConstraintViolated(DatabaseError):
    """A row broke a CHECK, a UNIQUE or a type: the same statement fails again."""


class DatabaseUnavailable(DatabaseError):
    """The database is locked, restarting or out of reach. Whether a commit under way went through is unknown."""


class DatabaseBroken(DatabaseError):
    """The disk refused (EIO, full) or the file is damaged: what the process believes may be wrong."""


class DatabaseInUse(DatabaseError):
    """Another process owns this database."""


class SchemaMismatch(DatabaseError):
    """The tables are of another version than this program."""
