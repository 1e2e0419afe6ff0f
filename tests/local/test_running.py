"""The running `up` tells its settings through its lock file, and nothing once it has ended."""

from pathlib import Path

from todoku.database.lock import FileLock
from todoku.local import running
from todoku.local.running import RunningUp

UP = RunningUp(1, "0.2.0", {"host": "::1", "nats_url": None}, {"host": "default"})


def test_settings_are_found_while_the_lock_is_held(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "up.lock")
    running.publish(tmp_path, UP)

    assert running.find(tmp_path) == UP
    lock.release()
    assert running.find(tmp_path) is None


def test_nothing_is_found_before_publication_after_withdrawal_and_in_strange_content(
    tmp_path: Path,
) -> None:
    assert running.find(tmp_path) is None
    lock = FileLock(tmp_path / "up.lock")
    assert running.find(tmp_path) is None
    running.publish(tmp_path, UP)
    running.withdraw(tmp_path)
    assert running.find(tmp_path) is None
    (tmp_path / "up.lock").write_text('{"pid": 1}')
    assert running.find(tmp_path) is None
    lock.release()
