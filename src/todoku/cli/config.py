"""`todoku config`: show every setting, its value and its source."""

from collections.abc import Iterable
from typing import Any

import msgspec

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Flags, SettingFlags, settings_from, settings_of_running
from todoku.cli.options import Flag
from todoku.cli.streams import to_json, write_json
from todoku.redaction import redact
from todoku.settings import Loaded, Setting, to_text, values_of
from todoku.system import load_system


def config(
    *,
    running: Flag = False,
    json: Flag = False,
    flags: Flags = None,
) -> None:
    """Show every setting, its value and its source.

    Accepts the flags of `todoku up`. Secrets are hidden.

    For example:

        todoku config
        todoku config --running
        todoku config --json | jq 'map_values(select(.origin != "default"))'

    Parameters
    ----------
    running
        Show the settings of the `todoku up` that runs on the data folder.
    json
        Print one JSON object, keyed by the settings' names.
    """
    loaded = _of_running(flags) if running else settings_from(flags)
    if json:
        write_json(_as_json(loaded))
    else:
        print(_as_text(loaded))


def _of_running(flags: SettingFlags | None) -> Loaded:
    loaded, up = settings_of_running(flags)
    if up is None:
        raise CommandFailed(
            f"no `todoku up` runs on the data folder {loaded.settings.data_dir}. Give its folder with"
            " --data-dir.",
            exit_code=ExitCode.UNREACHABLE,
        )
    return loaded


def _declared(loaded: Loaded) -> Iterable[tuple[str, Setting]]:
    return load_system(loaded.settings).declared.items()


def _as_json(loaded: Loaded) -> bytes:
    described = {name: _described(setting, loaded) for name, setting in _declared(loaded)}
    return msgspec.json.format(to_json(described))


def _described(setting: Setting, loaded: Loaded) -> dict[str, Any]:
    origin = loaded.origins[setting.name]
    return {
        "value": _shown(setting, loaded),
        "origin": origin.kind,
        "from": origin.name,
        "variable": setting.variable,
        "flag": setting.flag,
        "meaning": setting.meaning,
        "allowed": setting.allowed,
    }


def _as_text(loaded: Loaded) -> str:
    rows = [
        (name, _written(_shown(setting, loaded)), str(loaded.origins[name]))
        for name, setting in _declared(loaded)
    ]
    name_width, value_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(
        f"{name:<{name_width}}  {value:<{value_width}}  {origin}" for name, value, origin in rows
    )


def _shown(setting: Setting, loaded: Loaded) -> Any:
    """Return a value as JSON, without secrets."""
    value = values_of(loaded.settings)[setting.name]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact(str(value))


def _written(value: Any) -> str:
    """Return a value as text for people."""
    if value is None:
        return "(none)"
    return to_text(value) or '""'
