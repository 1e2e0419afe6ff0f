"""Settings: their sources, their limits, and what is reported for invalid ones."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from todoku.descriptor import ServiceDescriptor
from todoku.settings import (
    DeclarationInvalid,
    Loaded,
    Settings,
    SettingsInvalid,
    Span,
    to_environment,
)
from todoku.shipping.settings import ShippingSettings
from todoku.system import System, load_settings, load_system, system


def load_in(
    folder: Path,
    toml: str | None = None,
    environment: Mapping[str, str] | None = None,
    **flags: object,
) -> Loaded:
    if toml is not None:
        (folder / "todoku.toml").write_text(toml)
    return load_settings(flags, environment=environment or {}, directory=folder)


def problems_of(environment: Mapping[str, str], folder: Path, toml: str | None = None) -> str:
    with pytest.raises(SettingsInvalid) as refusal:
        load_in(folder, toml, environment)
    return str(refusal.value)


def test_character_nul_is_in_no_text_or_path(tmp_path: Path) -> None:
    """Neither an address nor a path can have it; only a file can contain it."""
    toml = r"""
        host = "\u0000"
        data_dir = "a\u0000"
        orders_database_url = "a\u0000b"
    """
    problems = problems_of({}, tmp_path, toml)
    assert all(
        f"{name} cannot be" in problems for name in ("host", "data_dir", "orders_database_url")
    )


def test_flag_precedes_environment_precedes_file_precedes_default(tmp_path: Path) -> None:
    toml = "orders_port = 1\ninventory_port = 2\nshipping_port = 3\n"
    environment = {"TODOKU_ORDERS_PORT": "4", "TODOKU_INVENTORY_PORT": "5"}

    loaded = load_in(tmp_path, toml, environment, orders_port="6")

    settings = loaded.settings
    ports = [settings.port(service) for service in system.names]
    assert [*ports, settings.nats_port] == [6, 5, 3, 4222]
    assert [
        str(loaded.origins[name])
        for name in ("orders_port", "inventory_port", "shipping_port", "nats_port")
    ] == [
        "flag --orders-port",
        "environment TODOKU_INVENTORY_PORT",
        f"file {tmp_path / 'todoku.toml'}",
        "default",
    ]


def test_variable_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("host = '0.0.0.0'")

    assert load_in(tmp_path, "", {"TODOKU_CONFIG": "other.toml"}).settings.host == "0.0.0.0"


def test_missing_named_file_is_an_error(tmp_path: Path) -> None:
    problems = problems_of({"TODOKU_CONFIG": "absent.toml"}, tmp_path)

    assert "absent.toml cannot be read: No such file" in problems
    assert "TODOKU_CONFIG" in problems


def test_invalid_toml_is_an_error_with_its_line(tmp_path: Path) -> None:
    problems = problems_of({}, tmp_path, "orders_port 3")

    assert "todoku.toml is not TOML" in problems
    assert "line 1" in problems


def test_unknown_name_in_file_is_an_error_with_a_guess(tmp_path: Path) -> None:
    problems = problems_of({}, tmp_path, "order_port = 1")

    assert "'order_port', which is not a setting. Did you mean orders_port?" in problems


def test_misspelt_variable_is_warned_of_and_unrelated_one_is_not(tmp_path: Path) -> None:
    environment = {"TODOKU_ORDER_PORT": "1", "TODOKU_FAILPOINT": "after-commit:1", "HOME": "/"}

    (warning,) = load_in(tmp_path, environment=environment).warnings

    assert warning.endswith("Did you mean TODOKU_ORDERS_PORT?")


def test_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    loaded = load_in(tmp_path, "nats_port = 5", {"TODOKU_NATS_PORT": ""})

    assert loaded.settings.nats_port == 5


@pytest.mark.parametrize(
    ("name", "written", "allowed"),
    [
        ("orders_port", "0", "a whole number from 1 to 65535"),
        ("orders_port", "80.5", "a whole number from 1 to 65535"),
        ("carrier_success_rate", "1.1", "a number from 0 to 1"),
        ("carrier_success_rate", "nan", "a number from 0 to 1"),
        ("carrier_delay_seconds", "3..1", "a number of seconds, or a range like 1..3"),
        ("carrier_delay_seconds", "-1", "a number of seconds, or a range like 1..3"),
        ("carrier_delay_seconds", "1..", "a number of seconds, or a range like 1..3"),
        ("demo_catalogue", "perhaps", "true or false"),
        ("log_format", "pretty", "auto, console, json"),
        ("batch_messages_max", "4", "a whole number from 5 to 1000000"),
        ("stream_name", "to.do", "letters, digits, - and _"),
        ("subject_prefix", "a.", "words of letters, digits, - and _, joined by dots"),
        ("nats_url", "localhost", "nats://HOST:PORT"),
    ],
)
def test_invalid_value_is_refused_with_source_and_allowed_values(
    name: str, written: str, allowed: str, tmp_path: Path
) -> None:
    variable = system.declared[name].variable

    problems = problems_of({variable: written}, tmp_path)

    assert problems.startswith(f"{name} cannot be '{written}' (environment {variable}): it is ")
    assert allowed in problems


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    environment = {"TODOKU_ORDERS_PORT": "x", "TODOKU_LOG_LEVEL": "loud"}

    assert len(problems_of(environment, tmp_path, "nonsense = 1").splitlines()) == 3


def test_inbox_retention_must_exceed_stream_retention(tmp_path: Path) -> None:
    problems = problems_of({"TODOKU_STREAM_MAX_AGE_SECONDS": "172800"}, tmp_path)

    assert "inbox_retention_seconds (172800, default) must be above" in problems
    assert "environment TODOKU_STREAM_MAX_AGE_SECONDS" in problems


def test_port_set_by_kubernetes_is_explained(tmp_path: Path) -> None:
    problems = problems_of({"TODOKU_ORDERS_PORT": "tcp://10.0.0.1:8080"}, tmp_path)

    assert "enableServiceLinks" in problems


def test_problem_hides_password(tmp_path: Path) -> None:
    problems = problems_of({"TODOKU_NATS_URL": "http://me:secret@broker"}, tmp_path)

    assert "secret" not in problems


@pytest.mark.parametrize(
    ("written", "span"),
    [("1..3", Span(1, 3)), ("0", Span(0, 0)), (0.5, Span(0.5, 0.5)), (".5..2.5", Span(0.5, 2.5))],
)
def test_span_is_a_number_or_a_range(written: object, span: Span) -> None:
    assert Span.parse(written) == span


@given(st.lists(st.floats(0, 1e6, width=32), min_size=2, max_size=2).map(sorted))
def test_span_survives_writing_and_reading(ends: list[float]) -> None:
    span = Span(*(float(f"{end:.15g}") for end in ends))

    assert Span.parse(str(span)) == span


def test_environment_carries_exactly_the_same_settings(tmp_path: Path) -> None:
    """Also where the default differs from the value, and where there is a file beside it."""
    settings = system.settings(
        data_dir=tmp_path,
        nats_url="nats://u:p@a:1,nats://b:2",
        carrier_delay_seconds=Span(0.25, 3),
        carrier_success_rate=1 / 3,
        demo_catalogue=True,
        log_format="json",
        orders_database_url="postgresql://x/y",
    )

    read = load_in(tmp_path, "nonsense = 1", to_environment(settings)).settings

    assert read == settings


def test_data_folder_is_absolute(tmp_path: Path) -> None:
    assert load_in(tmp_path, data_dir="x").settings.data_dir == Path.cwd() / "x"


def test_every_setting_has_meaning_and_valid_default() -> None:
    assert all(setting.meaning.endswith(".") for setting in system.declared.values())
    assert load_settings(
        environment={"TODOKU_CONFIG": "/dev/null"}
    ).settings == msgspec.structs.replace(system.settings(), data_dir=Path.cwd() / "todoku-data")


def test_addresses_are_found_by_service_name(tmp_path: Path) -> None:
    settings = system.settings(data_dir=tmp_path, shipping_database_url="postgresql://x", host="::")

    assert [settings.port(service) for service in system.names] == [8080, 8081, 8082]
    assert settings.http_url("inventory") == "http://[::1]:8081"
    assert settings.database("orders") == tmp_path / "orders.db"
    assert settings.database("shipping") == "postgresql://x"
    assert settings.broker_url == "nats://127.0.0.1:4222"


class TestSystem:
    """The system is a setting, and what its services declare are settings too."""

    def test_services_add_port_database_and_own_settings(self, tmp_path: Path, shop: str) -> None:
        environment = {
            "TODOKU_SYSTEM": shop,
            "TODOKU_STALL_PORT": "9000",
            "TODOKU_STALL_CLOSES_AFTER_SECONDS": "2.5",
        }

        loaded = load_in(tmp_path, "stall_database_url = 'stall.db'", environment)

        settings = loaded.settings
        assert settings.system == shop
        assert (settings.port("orders"), settings.port("stall")) == (8080, 9000)
        assert settings.database("stall") == "stall.db"
        assert str(loaded.origins["stall_database_url"]) == f"file {tmp_path / 'todoku.toml'}"
        assert load_system(settings).declared["stall_closes_after_seconds"].meaning == "A while."
        assert load_in(tmp_path, None, to_environment(settings)).settings == settings

    def test_default_ports_are_counted_from_the_list(self, tmp_path: Path, shop: str) -> None:
        settings = load_in(tmp_path, environment={"TODOKU_SYSTEM": shop}).settings

        assert dict(settings.ports) == {
            "orders": 8080,
            "inventory": 8081,
            "shipping": 8082,
            "stall": 8083,
        }

    @pytest.mark.parametrize(
        ("written", "problem"),
        [
            ("nowhere", "system cannot be 'nowhere' (environment TODOKU_SYSTEM): it is package."),
            ("no_such_shop.system:system", "Install that package in this environment"),
            ("todoku.system:no_such_system", "has no attribute 'no_such_system'"),
            ("todoku.system:load_system", "which is a function: name a todoku.system.System"),
        ],
    )
    def test_missing_system_is_an_error_with_advice(
        self, written: str, problem: str, tmp_path: Path
    ) -> None:
        problems = problems_of({"TODOKU_SYSTEM": written}, tmp_path)

        assert problem in problems
        assert repr(written) in problems
        assert "environment TODOKU_SYSTEM" in problems

    def test_own_settings_have_defaults(self) -> None:
        assert Settings().own(ShippingSettings) == ShippingSettings()
        assert system.settings(carrier_seed=3).own(ShippingSettings).carrier_seed == 3

    def test_setting_declared_twice_is_refused(self) -> None:
        class Again(msgspec.Struct, frozen=True):
            carrier: Annotated[str, msgspec.Meta(description="One more.")] = ""

        stall = ServiceDescriptor(
            name="stall", package="stall", service="stall:s", api="stall:a", settings=Again
        )
        with pytest.raises(DeclarationInvalid, match="stall declares the setting carrier"):
            System(*system.services, stall)

    @pytest.mark.parametrize("name", ["broker", "nats", "Stall", "my-stall", "", "orders"])
    def test_invalid_service_name_is_refused(self, name: str) -> None:
        stall = ServiceDescriptor(name=name, package="stall", service="stall:s", api="stall:a")
        with pytest.raises(ValueError, match=f"called '{name}'"):
            System(*system.services, stall)


SHOP = """
from typing import Annotated
import msgspec
from todoku.descriptor import ServiceDescriptor
from todoku.system import System, system as todoku

class StallSettings(msgspec.Struct, frozen=True, kw_only=True):
    stall_closes_after_seconds: Annotated[float, msgspec.Meta(ge=0, description="A while.")] = 1.0

stall = ServiceDescriptor(
    name="stall", package="stall", service="stall:s", api="stall:a", settings=StallSettings
)
system = System(*todoku.services, stall)
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A system with a service of somebody else's package."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "some_shop.py").write_text(SHOP)
    monkeypatch.syspath_prepend(str(package))
    yield "some_shop:system"
    sys.modules.pop("some_shop", None)


def test_port_base_moves_all_ports_that_are_not_set_themselves(tmp_path: Path) -> None:
    loaded = load_in(tmp_path, "shipping_port = 7", {"TODOKU_PORT_BASE": "9000"})

    settings = loaded.settings
    ports = [settings.port(service) for service in system.names]
    assert [*ports, settings.nats_port] == [9000, 9001, 7, 9003]
    assert str(loaded.origins["orders_port"]) == "environment TODOKU_PORT_BASE"
    assert str(loaded.origins["shipping_port"]) == f"file {tmp_path / 'todoku.toml'}"


def test_port_base_beyond_the_last_port_is_refused(tmp_path: Path) -> None:
    problems = problems_of({"TODOKU_PORT_BASE": "65534"}, tmp_path)

    assert "shipping_port cannot be '65536' (environment TODOKU_PORT_BASE)" in problems


def test_secret_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("postgresql://me:pw@db/orders\n")
    environment = {"TODOKU_ORDERS_DATABASE_URL_FILE": str(tmp_path / "secret")}

    loaded = load_in(tmp_path, environment=environment)

    assert loaded.settings.database("orders") == "postgresql://me:pw@db/orders"
    origin = loaded.origins["orders_database_url"]
    assert str(origin) == "environment TODOKU_ORDERS_DATABASE_URL_FILE"
    assert loaded.warnings == ()


def test_unreadable_file_of_a_secret_is_refused(tmp_path: Path) -> None:
    problems = problems_of({"TODOKU_NATS_URL_FILE": str(tmp_path / "absent")}, tmp_path)

    assert "absent cannot be read: No such file" in problems
    assert "Correct TODOKU_NATS_URL_FILE" in problems


def test_replicas_of_the_stream_need_a_cluster(tmp_path: Path) -> None:
    problems = problems_of({"TODOKU_STREAM_REPLICAS": "3"}, tmp_path)

    assert (
        "stream_replicas (3, environment TODOKU_STREAM_REPLICAS) needs a NATS cluster" in problems
    )
    assert "set nats_url" in problems
