"""`todoku pause`, `pauses` and `resume` with a running system, and where none runs."""

from pathlib import Path

from calling import Caller

from todoku.cli.exit_codes import ExitCode
from todoku.system import system


def test_paused_carrier_is_listed_until_it_is_resumed(todoku: Caller, running_data: Path) -> None:
    paused = todoku.ok("pause", "carrier", "--reason", "closed", "--by", "alice", "--json")
    try:
        assert [line["target"] for line in paused.lines] == ["carrier"]
        (listed,) = todoku.ok("pauses", "--json").lines
        assert (listed["service"], listed["pausedBy"]) == ("shipping", "alice")
        assert listed["reason"] == "closed"
        doctor = todoku("doctor", "--data-dir", str(running_data), "--json")
        (check,) = [check for check in doctor.object["checks"] if check["check"] == "pauses"]
        assert check["verdict"] == "warning"
        assert "todoku resume carrier" in check["fix"]
    finally:
        resumed = todoku.ok("resume", "carrier", "--rate", "50", "--by", "bob", "--json")
    assert [line["rate"] for line in resumed.lines] == [50]
    again = todoku("resume", "carrier")
    assert (again.code, "is not paused" in again.err) == (ExitCode.REFUSED, True)


def test_whole_system_is_paused_and_resumed_service_by_service(todoku: Caller) -> None:
    paused = todoku.ok("pause", "--reason", "moving", "--json")
    try:
        assert len(paused.lines) == len(system.names)
        left = todoku.ok("resume", "shipping")
        assert "shipping goes on" in left.err
    finally:
        resumed = todoku.ok("resume")
    assert "orders goes on" in resumed.err
    assert todoku.ok("pauses").err == "todoku: nothing is paused\n"


def test_unknown_name_is_refused(todoku: Caller) -> None:
    result = todoku("pause", "fax", "--reason", "x")
    assert result.code == ExitCode.USAGE
    assert result.err.startswith(
        "todoku: nothing that can be paused is called 'fax': give `system`"
    )
    assert result.err.count("todoku:") == 1


def test_services_that_could_not_be_reached_are_named(todoku_alone: Caller) -> None:
    result = todoku_alone("pause", "--reason", "x", "--port-base", "9")
    assert result.code == ExitCode.UNREACHABLE
    assert all(f"todoku: {name}: " in result.err for name in system.names)


def test_paused_product_is_named_and_resumed_by_its_id(todoku: Caller) -> None:
    paused = todoku.ok("pause", "--product", "prod 1", "--reason", "recalled", "--json")
    try:
        assert [line["target"] for line in paused.lines] == ["product:prod 1"]
        (listed,) = todoku.ok("pauses", "--json").lines
        assert (listed["service"], listed["target"]) == ("shipping", "product:prod 1")
    finally:
        resumed = todoku.ok("resume", "--product", "prod 1", "--rate", "20")
    assert "product:prod 1 goes on" in resumed.err


def test_something_and_a_product_are_not_paused_at_once(todoku: Caller) -> None:
    result = todoku("pause", "carrier", "--product", "prod1", "--reason", "x")
    assert result.code == ExitCode.USAGE
    assert "either 'carrier' or --product" in result.err
