"""What `todoku up` prints once all is ready: an order that can be placed as it stands."""

from pathlib import Path

from todoku.cli.up import _directory
from todoku.system import load_settings


def directory(**environment: str) -> str:
    loaded = load_settings({}, environment=environment)
    return _directory(loaded.settings, None)


def test_order_needs_no_credential_where_none_is_looked_at() -> None:
    assert "TODOKU_KEY" not in directory()


def test_order_has_a_credential_where_one_is_required(tmp_path: Path) -> None:
    printed = directory(TODOKU_AUTH="required")
    assert '-H "Authorization: Bearer $TODOKU_KEY"' in printed
    assert "`todoku key create`" in printed
    file = tmp_path / "first key"
    printed = directory(TODOKU_AUTH="required", TODOKU_BOOTSTRAP_KEY_FILE=str(file))
    assert f"""export TODOKU_KEY="$(cat '{file}')"\n  curl """ in printed
