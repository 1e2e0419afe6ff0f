"""Load settings from flags, environment, file and defaults, and say where each value came from."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from todoku.redaction import redact
from todoku.settings import nats, oidc
from todoku.settings.base import Settings
from todoku.settings.declared import (
    ENVIRONMENT_PREFIX,
    Declares,
    Setting,
    compose,
    declare,
    values_of,
    variable_of,
)
from todoku.settings.errors import SettingsInvalid

FILE_VARIABLE = "TODOKU_CONFIG"
KEY_VARIABLE = "TODOKU_KEY"
KEY_FILE_VARIABLE = "TODOKU_KEY_FILE"
FILE_NAME = "todoku.toml"


class Origin(msgspec.Struct, frozen=True):
    """Where a value came from: the kind of place, and its name there."""

    kind: Literal["flag", "environment", "file", "default", "running"]
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


class Loaded(msgspec.Struct, frozen=True):
    """The settings, where each came from, and warnings about variables that look misspelt."""

    settings: Settings
    origins: Mapping[str, Origin]
    warnings: tuple[str, ...] = ()


class Sources(msgspec.Struct, frozen=True):
    """Where settings may be written, in this order of precedence; the defaults come last."""

    flags: Mapping[str, object]
    environment: Mapping[str, str]
    file: Path | None
    in_file: Mapping[str, object]

    @classmethod
    def read(
        cls,
        flags: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> "Sources":
        """Return the sources, the file among them read. Raises `SettingsInvalid`."""
        environment = os.environ if environment is None else environment
        file = _file_path(environment, directory or Path.cwd())
        return cls(flags or {}, environment, file, _read_file(file) if file else {})

    def find(self, setting: Setting, default: object) -> tuple[object, Origin]:
        """Return what was written for a setting, and where."""
        if self.flags.get(setting.name) is not None:
            return self.flags[setting.name], Origin("flag", setting.flag)
        # An empty variable is as good as none: it is how compose files and scripts leave one out.
        if self.environment.get(setting.variable):
            return self.environment[setting.variable], Origin("environment", setting.variable)
        if setting.may_hold_secret and self.environment.get(setting.file_variable):
            path = Path(self.environment[setting.file_variable])
            return _read_secret(path, setting), Origin("environment", setting.file_variable)
        if setting.name in self.in_file:
            return self.in_file[setting.name], Origin("file", str(self.file))
        return default, Origin("default")


def load(
    sources: Sources,
    services: Sequence[Declares],
    *,
    defaults: Mapping[str, object] | None = None,
) -> Loaded:
    """Load every setting of a system of these services. Raises `SettingsInvalid` with all problems.

    `defaults` replaces defaults.
    """
    declared = declare(services)
    problems = [
        _unknown_key(name, sources.file, declared)
        for name in sources.in_file
        if name not in declared
    ]
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    moved, moved_by = _moved_ports(sources, declared["port_base"], services)
    for setting in declared.values():
        default = (defaults or {}).get(setting.name, setting.default)
        written, origin = sources.find(setting, moved.get(setting.name, default))
        is_moved = origin.kind == "default" and setting.name in moved
        origins[setting.name] = moved_by if is_moved else origin
        try:
            values[setting.name] = setting.convert(written)
        except ValueError:
            problems.append(unusable(setting, written, origins[setting.name]))
    problems.extend(_contradictions(values, origins))
    if problems:
        raise SettingsInvalid(problems)
    warnings = tuple(_near_misses(sources.environment, declared))
    return Loaded(compose(values, services), origins, warnings)


def _moved_ports(
    sources: Sources, port_base: Setting, services: Sequence[Declares]
) -> tuple[dict[str, int], Origin]:
    """Return the ports that follow from `port_base`, if that is set, and where it was set."""
    written, origin = sources.find(port_base, None)
    try:
        base: int | None = port_base.convert(written)
    except ValueError:
        base = None  # It is reported as every other value that cannot be used.
    if base is None:
        return {}, origin
    names = [*(f"{service.name}_port" for service in services), "nats_port", "console_port"]
    return {name: base + offset for offset, name in enumerate(names)}, origin


def to_environment(settings: Settings) -> dict[str, str]:
    """Return the variables from which another process reads exactly these settings, and no file."""
    variables = {FILE_VARIABLE: os.devnull}
    for name, value in values_of(settings).items():
        if value is not None:
            variables[variable_of(name)] = to_text(value)
    return variables


def to_text(value: object) -> str:
    """Return a value as it is written in a flag or a variable."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def unusable(setting: Setting, written: object, origin: Origin) -> str:
    """Return the problem that a value cannot be used."""
    shown = redact(str(written))
    problem = (
        f"{setting.name} cannot be {shown!r} ({origin}): it is {setting.allowed}. Correct it"
        + (" there." if origin.kind != "default" else f", with {setting.flag}.")
    )
    if setting.name.endswith("_port") and shown.startswith("tcp://"):
        problem += (
            " Kubernetes sets this variable for a Service of that name:"
            " turn it off with enableServiceLinks: false."
        )
    return problem


def _file_path(environment: Mapping[str, str], directory: Path) -> Path | None:
    named = environment.get(FILE_VARIABLE)
    if named:
        return directory / named
    path = directory / FILE_NAME
    return path if path.exists() else None


def _read_file(path: Path) -> dict[str, Any]:
    import tomllib  # only those who have a file pay for its reader

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsInvalid(
            [f"{path} cannot be read: {error.strerror}. Correct {FILE_VARIABLE}, or unset it."]
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsInvalid([f"{path} is not TOML: {error}. Correct the file."]) from error


def _read_secret(path: Path, setting: Setting) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsInvalid(
            [f"{path} cannot be read: {reason}. Correct {setting.file_variable}, or unset it."]
        ) from error


def _contradictions(values: Mapping[str, Any], origins: Mapping[str, Origin]) -> Iterator[str]:
    """Settings that are good alone and bad together."""
    age = values.get("stream_max_age_seconds")
    retention = values.get("inbox_retention_seconds")
    if age is not None and retention is not None and retention <= age:
        yield (
            f"inbox_retention_seconds ({retention:g}, {origins['inbox_retention_seconds']}) must be"
            f" above stream_max_age_seconds ({age:g}, {origins['stream_max_age_seconds']}), or a"
            " repeated message would be taken for a new one. Raise the first or lower the second."
        )
    for one, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if values.get(one) and not values.get(other):
            yield f"{one} ({origins[one]}) is set, but not {other}: TLS needs both. Set {other}."
    yield from nats.contradictions(values)
    yield from oidc.contradictions(values)
    replicas = values.get("stream_replicas", 1)
    if replicas > 1 and values.get("nats_url") is None:
        yield (
            f"stream_replicas ({replicas}, {origins['stream_replicas']}) needs a NATS cluster, and the"
            " embedded broker is one server: set nats_url to the addresses of the cluster's servers."
        )


def _unknown_key(name: str, path: Path | None, declared: Iterable[str]) -> str:
    meant = _closest(name, declared)
    guess = f"Did you mean {meant}?" if meant else "Remove it."
    return f"{path} sets {name!r}, which is not a setting. {guess}"


def _near_misses(environment: Mapping[str, str], declared: Mapping[str, Setting]) -> Iterator[str]:
    """Warn of variables that look like a misspelt setting; others may be for another program."""
    known = {*map(variable_of, declared), FILE_VARIABLE, KEY_VARIABLE, KEY_FILE_VARIABLE}
    known |= {each.file_variable for each in declared.values() if each.may_hold_secret}
    for variable in sorted(environment):
        if variable.startswith(ENVIRONMENT_PREFIX) and variable not in known:
            meant = _closest(variable, known)
            if meant:
                yield f"{variable} is not a setting and has no effect. Did you mean {meant}?"


def _closest(name: str, known: Iterable[str]) -> str | None:
    import difflib  # only the mistaken pay for it

    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.8)), None)
