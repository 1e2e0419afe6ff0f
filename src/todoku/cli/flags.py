"""Flags for all settings of the system, for the commands that read settings."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypedDict

import msgspec
from cyclopts import Parameter

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.local import running
from todoku.local.running import RunningUp
from todoku.redaction import has_secret, redact
from todoku.settings import (
    CONSOLE,
    Loaded,
    Origin,
    Setting,
    SettingsInvalid,
    Sources,
    to_text,
    values_of,
)
from todoku.settings.loading import FILE_VARIABLE
from todoku.system import SYSTEM, System, find_system, load_settings


def _typed_system(words: Sequence[str]) -> dict[str, object]:
    """Return the system that was typed as a flag: the other flags follow from it."""
    for word, following in zip(words, [*words[1:], None], strict=False):
        flag, equals, value = word.partition("=")
        if flag == SYSTEM.flag:
            return {SYSTEM.name: value if equals else following}
    return {}


def _current_system() -> System:
    try:
        return find_system(Sources.read(_typed_system(sys.argv[1:])))
    except SettingsInvalid as invalid:
        raise CommandFailed("\n".join(invalid.problems), exit_code=ExitCode.USAGE) from invalid


SYSTEM_HERE = _current_system()
"""The system that this command line is about."""


def _flag(setting: Setting) -> Any:
    default = "" if setting.default in (None, "") else f", default {to_text(setting.default)}"
    return Annotated[
        # Settings convert and check the text, as for every other source.
        bool if setting.is_switch else str,
        Parameter(
            name=setting.flag,
            help=f"{setting.meaning} [{setting.variable}{default}]",
            group="Settings",
            show_default=False,
        ),
    ]


ADDRESSES = ("system", "host", "port_base", *(f"{service}_port" for service in SYSTEM_HERE.names))
"""The settings that form the services' addresses."""

if TYPE_CHECKING:
    ServiceName: TypeAlias = str
    ProgramName: TypeAlias = str
    SettingFlags = dict[str, object]
    AddressFlags = dict[str, object]
else:
    ServiceName = Literal[SYSTEM_HERE.names]
    ProgramName = Literal[(*SYSTEM_HERE.names, CONSOLE)]
    SettingFlags = TypedDict(
        "SettingFlags",
        {name: _flag(setting) for name, setting in SYSTEM_HERE.declared.items()},
        total=False,
    )
    AddressFlags = TypedDict(
        "AddressFlags",
        {name: _flag(SYSTEM_HERE.declared[name]) for name in ADDRESSES},
        total=False,
    )

Flags = Annotated[SettingFlags | None, Parameter(name="*")]
"""The settings given as flags, not yet converted."""

Addresses = Annotated[AddressFlags | None, Parameter(name="*")]
"""The address settings given as flags, for commands that only send requests to services."""


def settings_of_running(flags: SettingFlags | None) -> tuple[Loaded, RunningUp | None]:
    """Load the settings of the `todoku up` that runs on the data folder, and return it as well.

    Flags of this command take precedence. Without a running `up`, the settings are those of this
    command. A secret is not known from outside: it is taken from this command's own settings, if
    all else of that address is the same. Raises `CommandFailed` for invalid settings.
    """
    return _with_running(settings_from(flags), flags)


def _with_running(own: Loaded, flags: SettingFlags | None) -> tuple[Loaded, RunningUp | None]:
    found = running.find(own.settings.data_dir)
    if found is None:
        return own, None
    values = {name: to_text(value) for name, value in values_of(own.settings).items() if value}
    theirs = {
        name: values.get(name, value) if redact(values.get(name, value)) == value else value
        for name, value in found.settings.items()
        if value is not None and name in SYSTEM_HERE.declared
    }
    try:
        loaded = load_settings({**theirs, **(flags or {})}, environment={FILE_VARIABLE: os.devnull})
    except SettingsInvalid as invalid:
        raise CommandFailed("\n".join(invalid.problems), exit_code=ExitCode.USAGE) from invalid
    origins = {
        name: origin if name in (flags or {}) else Origin("running", f"({found.origins.get(name)})")
        for name, origin in loaded.origins.items()
    }
    return msgspec.structs.replace(loaded, origins=origins), found


def settings_to_reach(addresses: AddressFlags | None) -> Loaded:
    """Load the settings for requests to services: those of the `todoku up` that runs on the data folder,
    unless an address is set here. Raises `CommandFailed` for invalid settings."""
    own = settings_from(addresses)
    if any(own.origins[name].kind != "default" for name in ADDRESSES):
        return own
    return _with_running(own, None)[0]


def _require_no_secrets(flags: SettingFlags) -> None:
    """Raise `CommandFailed` for a secret in a flag: the process list shows it to other users."""
    for name, value in flags.items():
        if isinstance(value, str) and has_secret(value):
            setting = SYSTEM_HERE.declared[name]
            raise CommandFailed(
                f"{setting.flag} holds a password or a token, which every user of this machine can"
                f" read in the process list. Set {setting.variable}, or {setting.file_variable} with"
                " the path of a file that holds it, or put it into todoku.toml.",
                exit_code=ExitCode.USAGE,
            )


def settings_from(flags: SettingFlags | None, *, on_this_machine: bool = False) -> Loaded:
    """Load the settings from flags and all other sources; print warnings to stderr.

    `on_this_machine` takes the defaults that the services declare for `todoku up`. Raises
    `CommandFailed` for invalid settings.
    """
    _require_no_secrets(flags or {})
    try:
        loaded = load_settings(flags, on_this_machine=on_this_machine)
    except SettingsInvalid as invalid:
        raise CommandFailed("\n".join(invalid.problems), exit_code=ExitCode.USAGE) from invalid
    for warning in loaded.warnings:
        print(f"todoku: {warning}", file=sys.stderr)
    return loaded
