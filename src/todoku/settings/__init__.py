"""Every setting: its name, default, unit, meaning and limits; and where each value came from.

A value is taken from the first of: a flag, the environment (`TODOKU_*`), a TOML file (`todoku.toml`
in the working directory, or the file that `TODOKU_CONFIG` names), the default. Settings are read
once, at start, and handed to whoever needs them. What there is to set follows from the services of
the system: `todoku.system.load_settings` loads them.
"""

from todoku.settings.base import CONSOLE, Settings
from todoku.settings.declared import (
    DeclarationInvalid,
    Declares,
    Setting,
    compose,
    declare,
    flag_of,
    port_flag,
    values_of,
    variable_of,
)
from todoku.settings.errors import SettingsInvalid
from todoku.settings.loading import (
    Loaded,
    Origin,
    Sources,
    load,
    to_environment,
    to_text,
    unusable,
)
from todoku.settings.types import (
    BrokerUrl,
    Count,
    Factory,
    Name,
    Port,
    Retention,
    Seconds,
    Span,
    SubjectPrefix,
)

__all__ = [
    "CONSOLE",
    "BrokerUrl",
    "Count",
    "DeclarationInvalid",
    "Declares",
    "Factory",
    "Loaded",
    "Name",
    "Origin",
    "Port",
    "Retention",
    "Seconds",
    "Setting",
    "Settings",
    "SettingsInvalid",
    "Sources",
    "Span",
    "SubjectPrefix",
    "compose",
    "declare",
    "flag_of",
    "load",
    "port_flag",
    "to_environment",
    "to_text",
    "unusable",
    "values_of",
    "variable_of",
]
