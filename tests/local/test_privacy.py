"""The data folder is private: its files are readable by their owner only, and links are refused."""

import grp
import os
import pwd
from pathlib import Path
from types import SimpleNamespace

import pytest

from todoku.local.claims import make_data_folder
from todoku.local.errors import Unavailable

OWN = ("orders.db", "orders.db-wal", "orders.db-shm", "orders.db.lock", "up.lock", "broker/a/b")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def refusal(folder: Path) -> str:
    with pytest.raises(Unavailable) as raised:
        make_data_folder(folder, ["orders"])
    return str(raised.value)


def test_existing_files_are_restricted_to_their_owner(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for name in OWN:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.chmod(0o644)
        path.parent.chmod(0o755)

    make_data_folder(tmp_path, ["orders"])

    assert {name: mode(tmp_path / name) for name in OWN} == dict.fromkeys(OWN, 0o600)
    assert mode(tmp_path / "broker") == mode(tmp_path / "broker" / "a") == 0o700


def test_files_of_other_programs_are_left_alone(tmp_path: Path) -> None:
    for name in ("notes.txt", "other.db", "orders.toml"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o644)

    make_data_folder(tmp_path, ["orders"])

    assert {mode(path) for path in tmp_path.iterdir()} == {0o644}
    assert mode(tmp_path) != 0o600


def test_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    assert f"other users can write to the data folder {tmp_path}" in refusal(tmp_path)
    assert "chmod go-w" in refusal(tmp_path)
    tmp_path.chmod(0o1777)
    assert "chmod go-w" in refusal(tmp_path)


def test_group_may_write_unless_it_has_other_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the private group of a user has none, and the group of a container's volume."""
    tmp_path.chmod(0o775)
    me = SimpleNamespace(pw_name="me", pw_uid=os.geteuid(), pw_gid=tmp_path.stat().st_gid)
    bob = SimpleNamespace(pw_name="bob", pw_uid=4711, pw_gid=4711)
    monkeypatch.setattr(pwd, "getpwall", lambda: [me, bob])
    monkeypatch.setattr(grp, "getgrgid", lambda _: SimpleNamespace(gr_mem=["me"]))
    make_data_folder(tmp_path, ["orders"])

    monkeypatch.setattr(grp, "getgrgid", lambda _: SimpleNamespace(gr_mem=["me", "bob"]))
    assert "chmod go-w" in refusal(tmp_path)


@pytest.mark.parametrize(
    "name", ["orders.db", "orders.db-wal", "orders.db.lock", "up.lock", "broker"]
)
def test_planted_link_is_refused(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir() if name == "broker" else victim.write_text("precious")
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    (folder / name).symlink_to(victim)

    said = refusal(folder)

    assert f"{folder / name} is a symbolic link" in said
    assert "Remove it" in said
    assert mode(victim) & 0o077, "the target was changed"


@pytest.mark.parametrize("name", ["nats-server.json", "jetstream", "damaged", "jetstream/x/y"])
def test_planted_link_in_files_of_the_broker_is_refused(tmp_path: Path, name: str) -> None:
    planted = tmp_path / "broker" / name
    planted.parent.mkdir(parents=True)
    planted.symlink_to(tmp_path / "elsewhere")

    assert f"{planted} is a symbolic link" in refusal(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_file_that_the_running_broker_deletes_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker" / "1.blk").touch()
    lstat = Path.lstat

    def deleted_first(path: Path) -> os.stat_result:
        if path.name == "1.blk":
            path.unlink()
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", deleted_first)

    make_data_folder(tmp_path, ["orders"])
