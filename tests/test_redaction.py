"""Secrets are hidden in addresses, connection strings and sentences; what is harmless stays."""

import re
import string
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from todoku.redaction import has_secret, redact
from todoku.shipping.answers import unknown_after
from todoku.web import asyncapi

MARK = "Xq7"
"""A part of every secret, found in nothing else."""

secrets = st.builds(
    lambda before, after: before + MARK + after,
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8),
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8),
)
awkward = st.builds(
    lambda before, after: before + MARK + after,
    st.text("/?#@:&;=%+'\"\\[]<>,. ab1", max_size=8),
    st.text("/?#@:&;=%+'\"\\[]<>,. ab1", max_size=8),
)
any_secret = secrets | awkward
words = st.text(string.ascii_lowercase, min_size=1, max_size=6)
schemes = st.sampled_from(["nats", "tls", "postgresql", "postgresql+psycopg", "http"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("todoku-data/orders.db", "todoku-data/orders.db"),
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("nats://[::1]:4222", "nats://[::1]:4222"),
        (
            "nats://a:b@one:1,nats://c@two,nats://three",
            "nats://***@one:1,nats://***@two,nats://three",
        ),
        ("nats://token@host", "nats://***@host"),
        (
            "write postgresql://USER:PASSWORD@HOST:PORT/NAME (in it, @ is %40)",
            "write postgresql://USER:PASSWORD@HOST:PORT/NAME (in it, @ is %40)",
        ),
        ("nats://u:p/w@h", "nats://***"),
        ("postgresql://u:se/cret@h/d", "postgresql://***"),
        ("postgresql://u:se?cret@h/d", "postgresql://***"),
        ("postgresql://u:se#cret@h/d", "postgresql://***"),
        ("postgresql://u:se@cret@h/d", "postgresql://***@h/d"),
        ("postgresql://u:se cret@h/d", "postgresql://***@h/d"),
        ("postgresql://u:secret", "postgresql://***"),
        ("postgresql://u@h1:1,h2:2/d", "postgresql://***@h1:1,h2:2/d"),
        (
            "postgresql://h/d?password=pw&sslmode=require",
            "postgresql://h/d?password=***&sslmode=require",
        ),
        ("postgresql://h/d?pass%77ord=pw", "postgresql://h/d?pass%77ord=***"),
        ("postgresql:///d?sslpassword=pw&user=me", "postgresql:///d?sslpassword=***&user=me"),
        ("postgresql://h/d?options=-c%20x", "postgresql://h/d?***"),
        ("host=h user=me password=pw dbname=d", "host=h user=me password=*** dbname=d"),
        ("host=h password='p w' user=me", "host=h password=*** user=me"),
        (r"password='p\' w' user=me", "password=*** user=me"),
        (r"password=p\ w user=me", "password=*** user=me"),
        ("PASSWORD = pw", "PASSWORD = ***"),
        ("sslpassword=pw", "sslpassword=***"),
        ('{"password": "p, w", "port": 1}', '{"password": ***, "port": 1}'),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("sent bearer abc.def", "sent bearer ***"),
        (
            "Send the header `Authorization: Bearer …`, and no other scheme.",
            "Send the header `Authorization: Bearer …`, and no other scheme.",
        ),
        ("Authorization: Bearer …abc.def", "Authorization: ***"),
        ("Authorization: Bearer abc.def`", "Authorization: ***"),
        ("me:pw@host:4222", "***@host:4222"),
        ("as in `order place prod001:2@5000`, or", "as in `order place prod001:2@5000`, or"),
        ("'prod002:1@-5' is not an item", "'prod002:1@-5' is not an item"),
        ("cannot reach nats://127.0.0.1:4222.", "cannot reach nats://127.0.0.1:4222."),
        ("cannot reach nats://a:b@h:1: refused", "cannot reach nats://***@h:1: refused"),
        ("(`postgresql://a:b@h/d` failed)", "(`postgresql://***@h/d` failed)"),
        ("database cannot be 'postgresql://a:b c@h/d'.", "database cannot be 'postgresql://***'."),
        ("from http://h:1/orders/1 to nats://a@b", "from http://h:1/orders/1 to nats://***@b"),
        (
            "password authentication failed for user me",
            "password authentication failed for user me",
        ),
        ("注文 order 12:30 → done", "注文 order 12:30 → done"),
        ("S" + "U" + "A" * 56, "***"),
    ],
)
def test_secrets_are_hidden_and_the_rest_is_shown(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("nats://host", False),
        ("nats://token@host", True),
        ("postgresql://user@host/d", False),
        ("postgresql+psycopg://user@h1,h2/d?sslmode=require", False),
        ("postgresql://user:pw@host/d", True),
        ("postgresql://user@host/d?password=pw", True),
        ("host=h password=pw", True),
        ("orders.db", False),
    ],
)
def test_secret_is_distinguished_from_a_user_of_postgresql(text: str, secret: bool) -> None:
    assert has_secret(text) is secret


def is_distinct_from_next_address(secret: str) -> bool:
    """Whether no part of a password looks like the next address of a list."""
    return "://" not in secret


@given(schemes, words, any_secret)
def test_password_of_address_is_hidden_whatever_it_holds(
    scheme: str, user: str, secret: str
) -> None:
    for address in (
        f"{scheme}://{user}:{secret}@host:5432/db",
        f"{scheme}://{user}:{quote(secret, safe='')}@host/db?sslmode=require",
        f"{scheme}://host/db?sslmode=require&password={quote(secret, safe='')}",
        f"{scheme}://host/db?password={secret}",
    ):
        assert MARK not in redact(address)


@given(schemes, words, any_secret)
def test_password_of_address_without_host_is_hidden(scheme: str, user: str, secret: str) -> None:
    assume("@" not in secret and "," not in secret)  # what follows those looks like a host
    assume(not re.match(r"\d{1,5}[/?#]", secret))  # nor like a port and a path

    assert MARK not in redact(f"{scheme}://{user}:{secret}")


@given(schemes, any_secret)
def test_password_is_hidden_in_list_of_addresses(scheme: str, secret: str) -> None:
    assume(is_distinct_from_next_address(secret))
    one = f"{scheme}://user:{secret}@one"

    assert MARK not in redact(f"{scheme}://zero,{one},{scheme}://two")


@given(words, schemes, any_secret, words)
def test_password_is_hidden_in_sentence(before: str, scheme: str, secret: str, after: str) -> None:
    assume(is_distinct_from_next_address(secret))
    address = f"{scheme}://user:{secret}@host/db"

    assert MARK not in redact(f"{before} {address} {after}")
    assert MARK not in redact(f"{before}: '{address}'; {after}")
    assert MARK not in redact(f"{before}:{address}")


@given(any_secret)
def test_password_of_connection_string_is_hidden(secret: str) -> None:
    quoted = "'" + secret.replace("\\", "\\\\").replace("'", "\\'") + "'"
    escaped = "".join(f"\\{character}" for character in secret)

    for value in (quoted, escaped):
        for text in (f"host=h password={value} dbname=d", f"sslpassword = {value}"):
            assert MARK not in redact(text)


@given(any_secret)
def test_unquoted_password_is_hidden_to_the_next_assignment(secret: str) -> None:
    assume("=" not in secret and not secret.strip().startswith(("'", '"')))

    assert MARK not in redact(f"host=h password={secret} dbname=d")


@given(schemes, words, st.integers(0, 65_535), words)
def test_address_without_secret_is_unchanged(scheme: str, host: str, port: int, path: str) -> None:
    address = f"{scheme}://{host}:{port}/{path}?sslmode=require"

    assert redact(address) == address
    assert redact(f"cannot reach {address}: refused") == f"cannot reach {address}: refused"
    assert not has_secret(address)


@given(st.text())
def test_any_text_is_accepted_and_stays_redacted(text: str) -> None:
    shown = redact(text)

    assert redact(shown) == shown


def test_error_of_a_carrier_is_stored_without_its_password() -> None:
    error = ConnectionError(f"cannot reach http://me:{MARK}@carrier.example")

    assert unknown_after(error).reason == (
        "ConnectionError: cannot reach http://***@carrier.example"
    )


@pytest.mark.parametrize(
    "url", [f"nats://u:{MARK}/w@h", f"nats://{MARK}@h:4222", f"nats://u:{MARK},w@h"]
)
def test_published_documents_name_hosts_only(url: str) -> None:
    document = asyncapi.document([], broker_url=url)

    assert MARK not in str(document)
