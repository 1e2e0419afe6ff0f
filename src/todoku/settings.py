"""Every setting: its name, default, unit, meaning and limits; and where each value came from.

A value is taken from the first of: a flag, the environment (`TODOKU_*`), a TOML file (`todoku.toml`
in the working directory, or the file that `TODOKU_CONFIG` names), the default. Settings are read
once, at start, and handed to whoever needs them.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta, inspect

ServiceName = Literal["orders", "inventory", "shipping"]
SERVICES: tuple[ServiceName, ...] = get_args(ServiceName)

ENVIRONMENT_PREFIX = "TODOKU_"
FILE_VARIABLE = "TODOKU_CONFIG"
FILE_NAME = "todoku.toml"


class SettingsInvalid(Exception):
    """Settings that cannot be used.

    Each problem says which one, where its value came from, what is allowed and what to do.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Span(msgspec.Struct, frozen=True):
    """A range to draw from, both ends included; written `1..3`, or `2` where the ends are one."""

    low: float
    high: float

    @classmethod
    def parse(cls, written: object) -> "Span":
        """Read a number or `low..high`.

        Raises `ValueError` for anything else, and for a range that is negative, endless or the
        wrong way round.
        """
        low, dots, high = str(written).partition("..")
        span = cls(float(low), float(high if dots else low))
        if not 0 <= span.low <= span.high < float("inf"):
            raise ValueError(written)
        return span

    def __str__(self) -> str:
        ends = (self.low,) if self.low == self.high else (self.low, self.high)
        return "..".join(f"{end:.15g}" for end in ends)


def _absolute_path(written: object) -> Path:
    """A path as a person writes it, made independent of the working directory."""
    if not isinstance(written, str | Path) or not str(written):
        raise ValueError(written)
    return Path(os.path.abspath(os.path.expanduser(written)))


Port = Annotated[int, Meta(ge=1, le=65535)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds = Annotated[float, Meta(ge=0, le=3_600)]
Retention = Annotated[float, Meta(ge=60, le=3_650 * 86_400)]
Name = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_-]+\Z", extra={"allowed": "letters, digits, - and _"})
]
BrokerUrl = Annotated[
    str,
    Meta(
        pattern=r"^(nats|tls)://\S+\Z",
        extra={"allowed": "nats://HOST:PORT or tls://HOST:PORT, several joined by commas"},
    ),
]
Factory = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*\Z",
        extra={"allowed": "package.module:function; it is called with the settings"},
    ),
]
SubjectPrefix = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)?\Z",
        extra={"allowed": "words of letters, digits, - and _, joined by dots"},
    ),
]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set, and the defaults."""

    data_dir: Annotated[
        Path,
        Meta(
            description="The folder that holds the databases and the embedded broker's files.",
            extra={"allowed": "a path"},
        ),
    ] = Path("todoku-data")

    host: Annotated[str, Meta(min_length=1, description="The address the services listen on.")] = (
        "127.0.0.1"
    )
    orders_port: Annotated[Port, Meta(description="The port of the orders service.")] = 8080
    inventory_port: Annotated[Port, Meta(description="The port of the inventory service.")] = 8081
    shipping_port: Annotated[Port, Meta(description="The port of the shipping service.")] = 8082

    nats_url: Annotated[
        BrokerUrl | None,
        Meta(description="An external broker's address; without one, the embedded broker is used."),
    ] = None
    nats_port: Annotated[Port, Meta(description="The port of the embedded broker.")] = 4222
    stream_name: Annotated[Name, Meta(description="The JetStream stream that carries events.")] = (
        "TODOKU"
    )
    subject_prefix: Annotated[
        SubjectPrefix,
        Meta(description="Put before every subject, so that installations can share a broker."),
    ] = ""
    stream_max_age_seconds: Annotated[
        Retention, Meta(description="How long the stream keeps an event, in seconds.")
    ] = 86_400.0
    stream_max_bytes: Annotated[
        int,
        Meta(ge=2**20, le=2**50, description="How much the stream keeps on disk, in bytes."),
    ] = 2**30

    orders_database_url: Annotated[
        str | None,
        Meta(description="The orders database; without one, orders.db in the data folder."),
    ] = None
    inventory_database_url: Annotated[
        str | None,
        Meta(description="The inventory database; without one, inventory.db in the data folder."),
    ] = None
    shipping_database_url: Annotated[
        str | None,
        Meta(description="The shipping database; without one, shipping.db in the data folder."),
    ] = None
    inbox_retention_seconds: Annotated[
        Retention,
        Meta(
            description="How long a handled message is remembered, in seconds; above the stream's."
        ),
    ] = 172_800.0

    batch_messages_max: Annotated[
        int,
        Meta(
            # Commands and receipts each have a fifth of it, messages the rest.
            ge=5,
            le=1_000_000,
            description="The most messages and commands in one transaction.",
        ),
    ] = 1_500
    mailbox_commands_max: Annotated[
        Count, Meta(description="The most HTTP commands that wait before more are refused.")
    ] = 2_000
    mailbox_messages_max: Annotated[
        Count, Meta(description="The most stream messages that wait before no more are fetched.")
    ] = 2_000
    outbox_backlog_max: Annotated[
        int,
        Meta(
            ge=1,
            le=2**31 - 1,
            description="The most events that wait for the broker before commands are refused.",
        ),
    ] = 500_000
    request_body_bytes_max: Annotated[
        int, Meta(ge=1_024, le=2**22, description="The largest HTTP request body, in bytes.")
    ] = 2**20

    carrier: Annotated[
        Factory | None,
        Meta(description="A function that makes the carrier; without one, it is simulated."),
    ] = None
    carrier_success_rate: Annotated[
        float,
        Meta(ge=0, le=1, description="The share of parcels that the simulated carrier accepts."),
    ] = 0.9
    carrier_delay_seconds: Annotated[
        Span,
        Meta(
            description="How long the simulated carrier takes, in seconds: a number or a range.",
            extra={"allowed": "a number of seconds, or a range like 1..3"},
        ),
    ] = Span(1, 3)
    carrier_seed: Annotated[
        int,
        Meta(
            ge=0,
            le=2**53 - 1,
            description="Decides, with a shipment's id, how the simulated carrier answers.",
        ),
    ] = 0
    demo_catalogue: Annotated[
        bool,
        Meta(description="Fill an empty inventory with the demo products; under `up`, true."),
    ] = False

    shutdown_grace_seconds: Annotated[
        Seconds,
        Meta(description="How long a process may take to stop cleanly, in seconds."),
    ] = 10.0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="The least severe log line that is written."),
    ] = "info"
    log_format: Annotated[
        Literal["auto", "console", "json"],
        Meta(description="How log lines look; auto: console on a terminal, else JSON."),
    ] = "auto"

    def port(self, service: str) -> int:
        """The port on which a service listens."""
        port: int = getattr(self, f"{service}_port")
        return port

    @property
    def own_host(self) -> str:
        """The address at which this machine reaches its own services."""
        # A wildcard is an address to listen on, not one to call.
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)

    def http_url(self, service: str) -> str:
        """Where a service is reached from this machine, without a slash at the end."""
        host = f"[{self.own_host}]" if ":" in self.own_host else self.own_host
        return f"http://{host}:{self.port(service)}"

    def database(self, service: str) -> str | Path:
        """A service's database: its URL where one is set, else a file in the data folder."""
        url: str | None = getattr(self, f"{service}_database_url")
        return url or self.data_dir / f"{service}.db"

    @property
    def broker_url(self) -> str:
        """The broker's address; servers of a cluster are joined by commas."""
        return self.nats_url or f"nats://127.0.0.1:{self.nats_port}"


class Setting(msgspec.Struct, frozen=True):
    """One field of `Settings`, as it is documented and converted."""

    name: str
    type: Any
    default: Any
    meaning: str
    allowed: str

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off, and so a flag without a value."""
        return isinstance(self.default, bool)

    def convert(self, written: object) -> Any:
        """The value that was written in a flag, a variable or a file. Raises `ValueError`."""
        if self.name == "data_dir":
            return _absolute_path(written)
        if isinstance(self.default, Span):
            return Span.parse(written)
        value = msgspec.convert(written, self.type, strict=False)
        if value != value:  # not a number: it would pass every limit
            raise ValueError(written)
        return value


def _what_is_allowed(kind: inspect.Type) -> str:
    """The limits of a type, for people."""
    match kind:
        case inspect.Metadata(extra={"allowed": str(allowed)}):
            return allowed
        case inspect.Metadata(type=inner) | inspect.UnionType(types=(inner, inspect.NoneType())):
            return _what_is_allowed(inner)
        case inspect.IntType(ge=low, le=high):
            return f"a whole number from {low} to {high}"
        case inspect.FloatType(ge=low, le=high):
            return f"a number from {low} to {high}"
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(map(str, values))
        case _:
            return "a text"


def _describe(struct: type[Settings]) -> Iterator[Setting]:
    annotations = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        annotation = annotations[field.name]
        kind = inspect.type_info(annotation)
        assert isinstance(kind, inspect.Metadata), f"{field.name} has no description"
        assert kind.extra_json_schema is not None, f"{field.name} has no description"
        yield Setting(
            name=field.name,
            type=annotation,
            default=field.default,
            meaning=kind.extra_json_schema["description"],
            allowed=_what_is_allowed(kind),
        )


SETTINGS: dict[str, Setting] = {setting.name: setting for setting in _describe(Settings)}
"""Every setting by its name, in the order of `Settings`."""


class Origin(msgspec.Struct, frozen=True):
    """Where a value came from: the kind of place, and its name there."""

    kind: Literal["flag", "environment", "file", "default"]
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


class Loaded(msgspec.Struct, frozen=True):
    """The settings, where each came from, and what its writer may have got wrong."""

    settings: Settings
    origins: Mapping[str, Origin]
    warnings: tuple[str, ...] = ()


def load(
    flags: Mapping[str, object] | None = None,
    *,
    defaults: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Loaded:
    """Gather the settings from flags, environment, file and defaults, in this order of precedence.

    `defaults` replaces defaults for one command. Raises `SettingsInvalid` with every problem found.
    """
    environment = os.environ if environment is None else environment
    path = _file_path(environment, directory or Path.cwd())
    in_file = _read_file(path) if path else {}
    problems = [_unknown_key(name, path) for name in in_file if name not in SETTINGS]

    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for setting in SETTINGS.values():
        written, origin = _find(setting, flags or {}, environment, in_file, path, defaults or {})
        origins[setting.name] = origin
        try:
            values[setting.name] = setting.convert(written)
        except ValueError:
            problems.append(_unusable(setting, written, origin))
    problems.extend(_contradictions(values, origins))
    if problems:
        raise SettingsInvalid(problems)
    return Loaded(Settings(**values), origins, tuple(_near_misses(environment)))


def to_environment(settings: Settings) -> dict[str, str]:
    """The variables from which another process reads exactly these settings, and no file."""
    variables = {FILE_VARIABLE: os.devnull}
    for setting in SETTINGS.values():
        value = getattr(settings, setting.name)
        if value is not None:
            variables[setting.variable] = to_text(value)
    return variables


def to_text(value: object) -> str:
    """A value as it is written in a flag or a variable."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def without_password(text: str) -> str:
    """A text in which the user and password of every address are hidden."""
    return re.sub(r"(?<=://)[^/\s]*@", "***@", text)


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


def _find(
    setting: Setting,
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    in_file: Mapping[str, object],
    path: Path | None,
    defaults: Mapping[str, object],
) -> tuple[object, Origin]:
    if flags.get(setting.name) is not None:
        return flags[setting.name], Origin("flag", setting.flag)
    # An empty variable is as good as none: it is how compose files and scripts leave one out.
    if environment.get(setting.variable):
        return environment[setting.variable], Origin("environment", setting.variable)
    if setting.name in in_file:
        return in_file[setting.name], Origin("file", str(path))
    return defaults.get(setting.name, setting.default), Origin("default")


def _unusable(setting: Setting, written: object, origin: Origin) -> str:
    shown = without_password(str(written))
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


def _unknown_key(name: str, path: Path | None) -> str:
    meant = _closest(name, SETTINGS)
    guess = f"Did you mean {meant}?" if meant else "Remove it."
    return f"{path} sets {name!r}, which is not a setting. {guess}"


def _near_misses(environment: Mapping[str, str]) -> Iterator[str]:
    """Variables that look like a misspelt setting; the others may be meant for another program."""
    known = {setting.variable for setting in SETTINGS.values()} | {FILE_VARIABLE}
    for variable in sorted(environment):
        if variable.startswith(ENVIRONMENT_PREFIX) and variable not in known:
            meant = _closest(variable, known)
            if meant:
                yield f"{variable} is not a setting and has no effect. Did you mean {meant}?"


def _closest(name: str, known: Iterable[str]) -> str | None:
    import difflib  # only the mistaken pay for it

    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.8)), None)
