"""Flags for all settings, for the commands that read settings."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from cyclopts import Parameter

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.settings import SERVICES, SETTINGS, Loaded, Setting, SettingsInvalid, load, to_text


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


ADDRESSES = ("host", *(f"{service}_port" for service in SERVICES))
"""The settings that form the services' addresses."""

if TYPE_CHECKING:
    SettingFlags = dict[str, object]
    AddressFlags = dict[str, object]
else:
    SettingFlags = TypedDict(
        "SettingFlags", {name: _flag(setting) for name, setting in SETTINGS.items()}, total=False
    )
    AddressFlags = TypedDict(
        "AddressFlags", {name: _flag(SETTINGS[name]) for name in ADDRESSES}, total=False
    )

Flags = Annotated[SettingFlags | None, Parameter(name="*")]
"""The settings given as flags, not yet converted."""

Addresses = Annotated[AddressFlags | None, Parameter(name="*")]
"""The address settings given as flags, for commands that only send requests to services."""


def settings_from(
    flags: SettingFlags | None, *, defaults: Mapping[str, object] | None = None
) -> Loaded:
    """Load the settings from flags and all other sources; print warnings to stderr.

    `defaults` replaces defaults for this command. Raises `CommandFailed` for invalid settings.
    """
    try:
        loaded = load(flags, defaults=defaults)
    except SettingsInvalid as invalid:
        raise CommandFailed("\n".join(invalid.problems), exit_code=ExitCode.USAGE) from invalid
    for warning in loaded.warnings:
        print(f"todoku: {warning}", file=sys.stderr)
    return loaded
