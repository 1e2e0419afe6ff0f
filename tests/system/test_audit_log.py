"""The audit logs of the three services: anchored at one another, checked by `verify`, kept over a restore."""

import asyncio
from typing import Any, Final

from sqlalchemy import text

from engine.virtual import run, until
from system.restoring import System
from todoku.audit import Report
from todoku.engine import AuditRequest, EngineConfig, Pause, request_of_task
from todoku.engine.audit_log.keeper import ANCHOR_SECONDS, WAITING_MAX, AuditKeeper
from todoku.engine.stream_positions import MARK_COPY

AUDITED: Final = EngineConfig(audit=True)


def asked(operation: str = "placeOrder", actor: str = "alice") -> AuditRequest:
    """Let the commands of this task belong to a request."""
    request = AuditRequest(operation=operation, name_of=lambda error: "refused", actor=actor)
    request_of_task.set(request)
    return request


def keeper(system: System, name: str) -> AuditKeeper:
    found = system.processes[name].audit
    assert found is not None
    return found


def logged(system: System, name: str, columns: str = "operation, outcome") -> list[Any]:
    return system.rows(name, f"SELECT {columns} FROM audit_log ORDER BY chain, sequence")


def anchors(system: System, name: str) -> list[Any]:
    return system.rows(name, "SELECT service, sequence FROM audit_anchors ORDER BY 1, chain, 2")


def tamper(system: System, name: str, statement: str) -> None:
    with system.databases[name].transaction() as connection:
        connection.execute(text(statement))


def wrong(report: Report) -> list[str]:
    return [each.problem.rpartition(": ")[2] for each in report.findings if each.invariant == "A1"]


async def started() -> System:
    system = System(AUDITED)
    await system.start()
    await system.stock()
    asked()
    await system.order(3)
    return system


def test_heads_of_chains_are_kept_by_another_service_and_nothing_is_wrong() -> None:
    async def scenario() -> None:
        system = await started()
        await until(lambda: ("orders", 4) in anchors(system, "inventory"))
        assert ("inventory", 1) in anchors(system, "orders")
        assert ("shipping", 1) in anchors(system, "orders")
        report = await system.settled()
        assert report.findings == ()
        states = {state.service: (state.rows, state.not_anchored) for state in report.audit_logs}
        assert states == {"orders": (4, 0), "inventory": (1, 0), "shipping": (1, 0)}
        await asyncio.sleep(3 * ANCHOR_SECONDS)
        assert len(anchors(system, "inventory")) <= 2  # What has not grown is not anchored again.
        await system.stop()

    run(scenario())


def test_every_planted_fault_is_found() -> None:
    async def scenario() -> None:
        system = await started()
        await until(lambda: ("orders", 4) in anchors(system, "inventory"))
        await system.settled()
        await system.stop()
        good = system.databases["orders"].serialize()
        for statement, found in (
            (
                "UPDATE audit_log SET outcome = 'refused' WHERE sequence = 2",
                "row 2 was changed, or exchanged with another",
            ),
            ("DELETE FROM audit_log WHERE sequence = 3", "row 3 is missing"),
            (
                "DELETE FROM audit_log WHERE sequence = 4",
                "row 4 is missing at its end",
            ),
            ("DELETE FROM audit_log", "the whole chain is missing, of 4 rows at least"),
        ):
            tamper(system, "orders", statement)
            assert found in wrong(system.report())
            system.restore("orders", good)
            assert wrong(system.report()) == []

    run(scenario())


def test_stop_anchors_the_last_rows() -> None:
    async def scenario() -> None:
        system = await started()
        await until(lambda: bool(anchors(system, "inventory")))
        asked()
        await system.order(2)
        await system.stop()
        assert anchors(system, "inventory")[-1] == ("orders", 4)
        await system.start()  # The anchor waited in the outbox.
        await until(lambda: ("orders", 6) in anchors(system, "inventory"))
        await system.stop()

    run(scenario())


def test_restored_database_begins_a_chain_that_says_so_and_is_clean() -> None:
    async def scenario() -> None:
        system = await started()
        await system.settled()
        backup = system.databases["orders"].serialize()
        asked()
        await system.order(4)
        await until(lambda: ("orders", 8) in anchors(system, "inventory"))
        await system.settled()
        await system.stop()
        system.restore("orders", backup)
        assert wrong(system.report()) == ["rows 5 to 8 are missing at its end"]
        await system.start()
        await until(lambda: ("begin", "restored") in logged(system, "orders"))
        report = await system.settled()
        assert report.findings == ()
        (state,) = [state for state in report.audit_logs if state.service == "orders"]
        assert len(state.restored_at) == 1
        await system.stop()

    run(scenario())


def test_copy_of_all_databases_is_clean_when_it_is_started() -> None:
    async def scenario() -> None:
        system = await started()
        await system.settled()
        backups = {name: database.serialize() for name, database in system.databases.items()}
        asked()
        await system.order(4)
        await until(lambda: ("orders", 8) in anchors(system, "inventory"))
        await system.stop()
        for name, backup in backups.items():
            system.restore(name, backup)
            tamper(system, name, MARK_COPY)
        await system.start()
        await until(lambda: ("begin", "restored") in logged(system, "orders"))
        await until(lambda: system.report().settled and not system.report().findings)
        await system.stop()

    run(scenario())


def test_pause_is_a_row_and_requests_without_a_command_and_counts_are_too() -> None:
    async def scenario() -> None:
        system = await started()
        audit = keeper(system, "shipping")
        asked("pause", "bob")
        pause = Pause(id="0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e", by="bob", reason="?")
        await system.processes["shipping"].execute(pause)
        request = asked("sendEventsAgain", "bob")
        await audit.write(request.entry())
        for _ in range(3):
            audit.count("10.0.0.1", "unauthorized")
        await until(lambda: len(logged(system, "shipping")) == 4)
        assert logged(system, "shipping") == [
            ("begin", "started"),
            ("pause", "done"),
            ("sendEventsAgain", "done"),
            ("refused", "unauthorized"),
        ]
        assert logged(system, "shipping", "times")[-1] == (3,)
        await system.stop()

    run(scenario())


def test_refusals_that_are_too_many_at_once_are_counted() -> None:
    async def scenario() -> None:
        system = await started()
        audit = keeper(system, "shipping")
        entry = asked().entry(ValueError())
        for _ in range(WAITING_MAX + 7):
            audit.note(entry)
        await until(lambda: ("refused", "too-many-to-list") in logged(system, "shipping"))
        assert logged(system, "shipping", "times")[-1] == (7,)
        assert len(logged(system, "shipping")) == WAITING_MAX + 2
        await system.stop()

    run(scenario())


def test_system_without_an_audit_log_has_no_rows_and_no_anchors() -> None:
    async def scenario() -> None:
        system = System()
        await system.start()
        await system.stock()
        asked()
        await system.order(2)
        report = await system.settled()
        assert (report.audit_logs, report.findings) == ((), ())
        await system.stop()
        assert anchors(system, "inventory") == logged(system, "orders") == []

    run(scenario())
