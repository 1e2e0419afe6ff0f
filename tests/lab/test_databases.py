"""When a running system is audited."""

import pytest

from todoku.audit import Report
from todoku.lab import databases
from todoku.lab.databases import audit_when_quiescent
from todoku.system import system


@pytest.mark.parametrize(("seconds_max", "audits"), [(30.0, 3), (0.0, 1)])
def test_what_is_published_between_the_look_and_the_audit_is_waited_for(
    seconds_max: float, audits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service writes the head of its audit log to another one whenever it is time."""
    found = [report(open_orders=1), report(open_orders=1), report(open_orders=0)]
    made: list[Report] = []

    def audit(*_: object, **__: object) -> Report:
        made.append(found[len(made)])
        return made[-1]

    monkeypatch.setattr(databases, "_is_quiescent", lambda _: True)
    monkeypatch.setattr(databases, "audit_all", audit)
    _, last = audit_when_quiescent(system.settings(), seconds_max=seconds_max, overdue_seconds=1)
    assert last is made[-1]
    assert len(made) == audits


def report(*, open_orders: int) -> Report:
    return Report(
        findings=(), orders={}, awaited=(), dead_letters=(), open_orders=open_orders, paused=()
    )
