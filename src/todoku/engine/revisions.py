"""The engine's tables for the schema revisions of the services.

A released revision is never edited. `todoku.engine.tables` declares the tables as they are today, and
a test compares the two.
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.schema import SchemaItem

from todoku.database import Integer64, Timestamp
from todoku.engine.copies import BY, REASON, pause_id
from todoku.engine.pauses import SERVICE
from todoku.engine.stream_positions import COPIED, RECOVERY


def create_table(name: str, *items: SchemaItem) -> None:
    """Create a service's own table, which rejects values of the wrong type on either database."""
    op.create_table(name, *items, sqlite_strict=True)


def create_engine_tables() -> None:
    """Create those tables of the engine that do not exist yet.

    Call it in the first revision of a service, and in a new one after an update of Todoku that needs
    more tables.
    """
    existing = sa.inspect(op.get_bind()).get_table_names()
    if "inbox" not in existing:
        create_first_tables()
    if "idempotency_keys" not in existing:
        create_idempotency_keys()
    if "pauses" not in existing:
        create_pauses()
    if "audit_log" not in existing:
        create_audit_log()
    if "erasures" not in existing:
        create_erasures()
    if "api_keys" not in existing:
        create_api_keys()
    if "owner_positions" not in existing:
        create_owner_positions()


def create_first_tables() -> None:
    """Create inbox, outbox, leases and dead letters, as the first version of the engine had them."""
    op.create_table(
        "inbox",
        sa.Column("event_id", sa.Text, primary_key=True),
        sa.Column("received_at", Timestamp, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("inbox_by_age", "inbox", ["received_at"])
    op.create_table(
        "outbox",
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("reader", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("position", Integer64, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("said_at", Timestamp, nullable=False),
        sa.UniqueConstraint("event_id", "reader"),
        sqlite_strict=True,
    )
    op.create_index("outbox_by_position", "outbox", ["owner", "position"])
    op.create_table(
        "leases",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("expires_at", Timestamp, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "stream_positions",
        sa.Column("incarnation", sa.Text, primary_key=True),
        sa.Column("sequence", Integer64, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("headers", sa.Text),
        sa.Column("event_id", sa.Text),
        sa.Column("event_type", sa.Text),
        sa.Column("order_id", sa.Text),
        sa.Column("parked_at", Timestamp, nullable=False),
        sa.Column("attempts", Integer64, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("traceback", sa.Text),
        sa.Column("error_group", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("retry_at", Timestamp),
        sa.Column("retry_by", sa.Text),
        sa.Column("closed_at", Timestamp),
        sa.Column("closed_by", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("replaces", sa.Text),
        sa.Column("replaced_by", sa.Text),
        sa.CheckConstraint("attempts >= 1", name="attempts_positive"),
        sa.CheckConstraint(
            "state IN ('PARKED', 'RETRIED', 'EDITED', 'DISCARDED')", name="state_known"
        ),
        sa.CheckConstraint("(state = 'PARKED') = (closed_at IS NULL)", name="closed_once"),
        sa.CheckConstraint("state <> 'PARKED' OR error IS NOT NULL", name="parked_for_a_fault"),
        sa.CheckConstraint("state = 'PARKED' OR retry_at IS NULL", name="only_parked_retried"),
        sa.CheckConstraint(
            "(state = 'EDITED') = (replaced_by IS NOT NULL)", name="edited_replaced"
        ),
        sa.CheckConstraint(
            "state <> 'DISCARDED' OR (reason IS NOT NULL AND closed_by IS NOT NULL)",
            name="discarded_for_a_reason",
        ),
        sqlite_strict=True,
    )
    op.create_index("dead_letters_by_order", "dead_letters", ["order_id"])
    op.create_index("dead_letters_by_state", "dead_letters", ["state", "parked_at", "id"])
    op.create_index(
        "dead_letters_to_retry",
        "dead_letters",
        ["retry_at"],
        sqlite_where=sa.text("retry_at IS NOT NULL"),
        postgresql_where=sa.text("retry_at IS NOT NULL"),
    )
    op.create_table(
        "dead_letter_attempts",
        sa.Column("id", Integer64, primary_key=True),
        sa.Column("letter_id", sa.Text, nullable=False),
        sa.Column("at", Timestamp, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("asked_by", sa.Text),
        sqlite_strict=True,
    )
    op.create_index("dead_letter_attempts_by_letter", "dead_letter_attempts", ["letter_id"])


def create_idempotency_keys() -> None:
    """Create the table of idempotency keys."""
    op.create_table(
        "idempotency_keys",
        sa.Column("number", Integer64, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("refused", Integer64, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("used_at", Timestamp, nullable=False),
        sa.CheckConstraint("refused IN (0, 1)", name="refused_or_not"),
        sqlite_strict=True,
    )


def create_pauses() -> None:
    """Create the tables of pauses, and of the timers that were set during one."""
    op.create_table(
        "pauses",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("paused_at", Timestamp, nullable=False),
        sa.Column("paused_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("resumed_at", Timestamp),
        sa.Column("resumed_by", sa.Text),
        sa.Column("rate", Integer64),
        sa.Column("next_at", Timestamp),
        sa.Column("through_at", Timestamp),
        sa.CheckConstraint(
            "(resumed_at IS NULL) = (resumed_by IS NULL)", name="resumed_by_somebody"
        ),
        sa.CheckConstraint("rate IS NULL OR resumed_at IS NOT NULL", name="rate_of_resume"),
        sa.CheckConstraint("rate IS NULL OR rate BETWEEN 1 AND 1000", name="rate_in_range"),
        sa.CheckConstraint(
            "through_at IS NULL OR resumed_at IS NOT NULL", name="through_after_resume"
        ),
        sqlite_strict=True,
    )
    op.create_index(
        "pauses_open",
        "pauses",
        ["paused_at"],
        sqlite_where=sa.text("through_at IS NULL"),
        postgresql_where=sa.text("through_at IS NULL"),
    )
    op.create_table(
        "paused_timers",
        sa.Column("agenda", sa.Text, primary_key=True),
        sa.Column("timer", sa.Text, primary_key=True),
        sa.Column("set_at", Timestamp, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    _pause_copy()


def _pause_copy() -> None:
    """Pause a copy that an earlier version made, as this version makes them."""
    now = datetime.now(UTC)
    connection = op.get_bind()
    copied = "SELECT 1 FROM stream_positions WHERE incarnation = :name AND sequence = :copied"
    if connection.scalar(sa.text(copied), {"name": RECOVERY, "copied": COPIED}):
        pauses = sa.table(
            "pauses",
            *(sa.column(name) for name in ("id", "target", "paused_by", "reason")),
            sa.column("paused_at", Timestamp),
        )
        values = {"id": pause_id(now), "target": SERVICE, "paused_by": BY, "reason": REASON}
        connection.execute(sa.insert(pauses).values(paused_at=now, **values))


def create_api_keys() -> None:
    """Create the table of API keys."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("version", Integer64, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("created_by", sa.Text),
        sa.Column("expires_at", Timestamp),
        sa.Column("revoked_at", Timestamp),
        sa.Column("last_used_at", Timestamp),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def create_owner_positions() -> None:
    """Create the table of what each process has handled of the stream."""
    op.create_table(
        "owner_positions",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("stream_epoch", sa.Text, primary_key=True),
        sa.Column("sequence", Integer64, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "postgresql":
        # Every batch updates a row: within its page, and vacuumed before the dead ones fill many.
        op.execute(
            "ALTER TABLE owner_positions"
            " SET (fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0)"
        )


def create_audit_log() -> None:
    """Create the tables of the audit log, of the names in it, and of the anchors of others."""
    op.create_table(
        "audit_log",
        sa.Column("chain", sa.Text, primary_key=True),
        sa.Column("sequence", Integer64, primary_key=True),
        sa.Column("at", Timestamp, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("actor", sa.Text),
        sa.Column("key_id", sa.Text),
        sa.Column("subject", sa.Text),
        sa.Column("about", sa.Text),
        sa.Column("trace_id", sa.Text),
        sa.Column("source", sa.Text),
        sa.Column("times", Integer64, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("audit_log_by_time", "audit_log", ["at"])
    op.create_index("audit_log_by_subject", "audit_log", ["subject"])
    op.create_table(
        "audit_names",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "audit_anchors",
        sa.Column("service", sa.Text, primary_key=True),
        sa.Column("chain", sa.Text, primary_key=True),
        sa.Column("sequence", Integer64, primary_key=True),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("kept_at", Timestamp, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def create_erasures() -> None:
    """Create the table of the persons that were erased."""
    op.create_table(
        "erasures",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("order_ids", sa.Text, nullable=False),
        sa.Column("erased_at", Timestamp, nullable=False),
        sqlite_strict=True,
    )
