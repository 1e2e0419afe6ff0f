"""Let SQLite allocate memory without counting it (docs/decisions/0062-defaults-of-a-distribution.md).

Most builds count each allocation under a mutex, for figures that nothing here reads. SQLite's own manual
recommends to switch that off. The driver has no function for it, so the library that it uses is called.
"""

import ctypes
from importlib.util import find_spec

SQLITE_CONFIG_MEMSTATUS = 9
SQLITE_OK = 0


def count_no_memory() -> bool:
    """Switch the counting off, before this process opens its first database; return whether that was
    possible. Where it is not, SQLite works as well, only slower."""
    driver = find_spec("_sqlite3")
    try:
        sqlite = ctypes.CDLL(None if driver is None else driver.origin)
        configure = sqlite.sqlite3_config
        configure.argtypes = [ctypes.c_int]  # Those that follow are variadic.
        sqlite.sqlite3_shutdown()  # To import the driver has initialized it, and then it takes no settings.
        result = configure(SQLITE_CONFIG_MEMSTATUS, ctypes.c_int(0))
        sqlite.sqlite3_initialize()
    except (OSError, AttributeError):
        return False  # The library is not visible from outside of the driver.
    return bool(result == SQLITE_OK)
