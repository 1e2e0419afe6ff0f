"""The log files of `up`: private, bounded, and searched by order."""

import stat
from pathlib import Path

from todoku.local.log_files import LogFiles, about, read_lines

ORDER = "0198c2f0-7b1a-7c3e-9d55-000000000001"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def log_line(second: int, text: str) -> str:
    return f'{{"timestamp": "2030-01-01T00:00:{second:02}.5Z", {text}}}'


def test_lines_of_all_programs_come_in_the_order_of_time(tmp_path: Path) -> None:
    files = LogFiles(tmp_path)
    files.write("orders", log_line(2, '"event": "second"'))
    files.write("shipping", "2030-01-01 00:00:01.5 [warning] first")
    files.write("broker", "[1] 2030/01/01 00:00:03.5 [ERR] third")
    files.close()
    lines = read_lines(tmp_path, ["orders", "shipping", "broker"])
    assert [line.program for line in lines] == ["shipping", "orders", "broker"]


def test_lines_about_an_order_are_those_with_its_id_and_those_in_its_trace(tmp_path: Path) -> None:
    files = LogFiles(tmp_path)
    files.write("orders", log_line(1, f'"key": "{ORDER}", "trace_id": "{TRACE}"'))
    files.write("orders", log_line(2, '"key": "another"'))
    files.write("shipping", f"2030-01-01 00:00:03 [warning] carrier_was_slow trace_id={TRACE}")
    files.write("shipping", f"2030-01-01 00:00:04 [error] failed order_id={ORDER}")
    files.write("shipping", "Traceback (most recent call last):")
    files.write("shipping", "ValueError")
    found = list(about(read_lines(tmp_path, ["orders", "shipping"]), ORDER))
    assert [line.time[17:19] for line in found] == ["01", "03", "04"]
    assert found[2].text.endswith("Traceback (most recent call last):\nValueError")


def test_file_is_private_bounded_and_without_colours(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, bytes_max=1_000)
    for n in range(100):
        files.write("orders", f"\x1b[31m2030-01-01 00:00:00 line {n:03}\x1b[0m")
    folder = tmp_path / "logs"
    assert sorted(path.name for path in folder.iterdir()) == ["orders.log", "orders.log.1"]
    assert all(path.stat().st_size <= 1_000 for path in folder.iterdir())
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.iterdir())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    lines = [line.text for line in read_lines(tmp_path, ["orders"])]
    assert lines[-1] == "2030-01-01 00:00:00 line 099"


def test_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file is in its place")
    LogFiles(tmp_path).write("orders", "a line")
    assert list(read_lines(tmp_path, ["shipping"])) == []
