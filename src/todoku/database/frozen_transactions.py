"""End the transactions of processes that have frozen, so that others get the rows they had locked.

A process that is stopped in the middle of a transaction (SIGSTOP, a suspended machine, a node that is cut
off) keeps its row locks. Its backend waits for the client then. `statement_timeout` does not end that, and
neither does `idle_in_transaction_session_timeout` if the client froze in the middle of a pipeline. So
whoever has waited for a lock, and each process now and then, ends such backends: of its own role, database
and `application_name`, after `FROZEN_SECONDS` by the server's clock. What was not committed is rolled back,
and a process that continues finds its connection closed.
"""

import structlog
from sqlalchemy import Connection, text

log = structlog.get_logger(__name__)

FROZEN_SECONDS = 5.0
"""How long a transaction may wait for its client. The writer's Python takes less than a second between two
statements, also for its largest batches; a transaction that is ended for no reason is repeated."""

# One that only reads has no transaction id: it locks nothing, and may take its time.
_END = text(
    "SELECT pid, coalesce(client_addr || ':' || client_port, 'local') AS client,"
    " pg_terminate_backend(pid) AS ended"
    " FROM pg_stat_activity"
    " WHERE datname = current_database() AND usename = current_user"
    " AND application_name = current_setting('application_name')"
    " AND pid <> pg_backend_pid() AND backend_xid IS NOT NULL AND wait_event_type = 'Client'"
    " AND greatest(state_change, query_start) < clock_timestamp() - make_interval(secs => :seconds)"
)


def end_frozen(connection: Connection) -> int:
    """End what has waited for its client for longer than `FROZEN_SECONDS`; return how many transactions."""
    found = connection.execute(_END, {"seconds": FROZEN_SECONDS}).all()
    for pid, client, ended in found:
        log.warning("frozen_transaction_ended", backend_pid=pid, client=client, ended=ended)
    return len(found)
