"""Which credential commands send."""

from pathlib import Path

import pytest

from todoku.cli import client as client_module
from todoku.cli import credential as credentials
from todoku.cli.client import client
from todoku.cli.credential import credential
from todoku.cli.errors import CommandFailed
from todoku.system import load_settings


def test_variable_comes_before_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert credential() is None
    (tmp_path / "key").write_text("tdk_a_b\n")
    monkeypatch.setenv("TODOKU_KEY_FILE", str(tmp_path / "key"))
    assert credential() == "tdk_a_b"
    monkeypatch.setenv("TODOKU_KEY", "tdk_c_d")
    assert credential() == "tdk_c_d"


def test_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TODOKU_KEY_FILE", str(tmp_path / "absent"))
    with pytest.raises(CommandFailed, match="absent"):
        credential()


def test_key_file_that_others_can_read_is_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "open" / "key"
    key.parent.mkdir()
    key.parent.chmod(0o755)
    key.write_text("tdk_a_b\n")
    monkeypatch.setenv("TODOKU_KEY_FILE", str(key))
    for file, folder, warnings in ((0o600, 0o755, 0), (0o644, 0o700, 0), (0o644, 0o755, 1)):
        credentials.warn_if_exposed.cache_clear()
        key.chmod(file)
        key.parent.chmod(folder)
        assert (credential(), credential()) == ("tdk_a_b", "tdk_a_b")
        assert capsys.readouterr().err.count(f"`chmod 600 {key}`") == warnings


def test_its_variables_are_not_taken_for_misspelt_settings() -> None:
    environment = {"TODOKU_KEY": "tdk_a_b", "TODOKU_KEY_FILE": "key", "TODOKU_CONFIG": "/dev/null"}
    assert load_settings({}, environment=environment).warnings == ()


def test_credential_in_clear_text_over_a_network_is_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client_module.warn_of_clear_text.cache_clear()
    loaded = load_settings({}, environment={}).settings
    for url in ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://a.example"):
        client("orders", url, loaded, key="tdk_a_b")
    client("orders", "http://a.example", loaded)
    assert capsys.readouterr().err == ""
    for _ in range(2):
        client("orders", "http://me:pw@a.example", loaded, key="tdk_a_b")
    printed = capsys.readouterr().err
    assert printed.count("goes to a.example in clear text") == 1
    assert "tdk_a_b" not in printed
    assert "pw" not in printed
