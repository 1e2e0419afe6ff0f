"""Flags for all settings of the system, for the commands that read settings."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypedDict

from cyclopts import Parameter

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.settings import Loaded, Setting, SettingsInvalid, Sources, to_text
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


ADDRESSES = ("system", "host", *(f"{service}_port" for service in SYSTEM_HERE.names))
"""The settings that form the services' addresses."""

if TYPE_CHECKING:
    ServiceName: TypeAlias = str
    SettingFlags = dict[str, object]
    AddressFlags = dict[str, object]
else:
    ServiceName = Literal[SYSTEM_HERE.names]
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


def settings_from(flags: SettingFlags | None, *, on_this_machine: bool = False) -> Loaded:
    """Load the settings from flags and all other sources; print warnings to stderr.

    `on_this_machine` takes the defaults that the services declare for `todoku up`. Raises
    `CommandFailed` for invalid settings.
    """
    try:
        loaded = load_settings(flags, on_this_machine=on_this_machine)
    except SettingsInvalid as invalid:
        raise CommandFailed("\n".join(invalid.problems), exit_code=ExitCode.USAGE) from invalid
    for warning in loaded.warnings:
        print(f"todoku: {warning}", file=sys.stderr)
    return loaded
