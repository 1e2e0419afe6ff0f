"""The configuration of NATS servers that Todoku does not start itself: one, or those of a cluster.

The stream is in an account of its own, and each credential in another one, which imports what its permissions
name (`permissions`). So a reply that a request sends to a foreign subject stays in the account of who asked:
permissions alone do not hold replies (decision 42). Source: docs.nats.io, "Accounts" and "Clustering".
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from todoku.broker.embedded import MESSAGE_BYTES_MAX
from todoku.broker.permissions import (
    API_PREFIX,
    OPERATOR,
    READER,
    ROLLED_BACK,
    Permissions,
    Place,
    inbox_of,
    of_listener,
    of_reader,
    of_service,
)

API = "$TODOKU.API"
"""Where JetStream takes requests in the accounts that import it: their own `$JS.API` says that it is off."""

STREAM_ACCOUNT = "TODOKU"
CLIENT_PORT, MONITORING_PORT, ROUTE_PORT = 4222, 8222, 6222


class Cluster(msgspec.Struct, frozen=True):
    """The servers of a cluster by name, and the password with which they know each other."""

    nodes: tuple[str, ...]
    password: str


class Layout(msgspec.Struct, frozen=True):
    """Who connects to an installation: its services, of which the first updates the stream, and listeners."""

    place: Place
    services: tuple[str, ...]
    listeners: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all credentials."""
        return (OPERATOR, READER, *self.services, *self.listeners)

    def permissions(self) -> dict[str, Permissions]:
        """Return what each may do who is not the operator."""
        return {
            READER: of_reader(self.place),
            **{
                name: of_service(name, self.place, updates=name == self.services[0])
                for name in self.services
            },
            **{name: of_listener(name, self.place) for name in self.listeners},
        }


def server_config(
    layout: Layout,
    keys: Mapping[str, str],
    *,
    node: str,
    store_dir: str,
    stream_max_bytes: int,
    cluster: Cluster | None = None,
) -> dict[str, Any]:
    """Return the configuration of one server; `keys` are the public keys by name."""
    config: dict[str, Any] = {
        "server_name": node,
        "listen": f"0.0.0.0:{CLIENT_PORT}",
        "http": f"0.0.0.0:{MONITORING_PORT}",
        "max_payload": MESSAGE_BYTES_MAX,
        "jetstream": {
            "store_dir": store_dir,
            # The default syncs every two minutes: a power cut would take the whole stream.
            "sync_interval": "always",
            "max_file_store": 2 * stream_max_bytes,
            "max_memory_store": 64 * 2**20,
        },
        "accounts": accounts(layout, keys),
    }
    if cluster is not None:
        user = f"todoku:{cluster.password}@"
        config["cluster"] = {
            "name": "todoku",
            "listen": f"0.0.0.0:{ROUTE_PORT}",
            "authorization": {"user": "todoku", "password": cluster.password},
            "routes": [f"nats://{user}{name}:{ROUTE_PORT}" for name in cluster.nodes],
        }
    return config


def accounts(layout: Layout, keys: Mapping[str, str]) -> dict[str, Any]:
    """Return the accounts: that of the stream, and one for each who is not the operator."""
    permissions = layout.permissions()
    return {
        STREAM_ACCOUNT: {
            "jetstream": "enabled",
            "users": [{"nkey": keys[OPERATOR]}],
            "exports": [
                export
                for name, each in permissions.items()
                for export in _exports(name, each, layout.place)
            ],
        },
        **{
            _account(name): {
                "users": [{"nkey": keys[name], "permissions": _permissions(name, each)}],
                "exports": list(_own_exports(name, layout)),
                "imports": [*_imports(each, layout.place), *_imports_of_others(name, layout)],
            }
            for name, each in permissions.items()
        },
    }


def _account(name: str) -> str:
    return f"{STREAM_ACCOUNT}_{name.upper()}"


def _permissions(name: str, permissions: Permissions) -> dict[str, Any]:
    """Return a user's own permissions: what the account imports, so that the rest is refused by name."""
    inbox = f"{inbox_of(name)}.>"
    subscribe = ("_INBOX.>" if each == inbox else each for each in permissions.subscribe)
    return {
        "publish": {"allow": [_as_imported(each) for each in permissions.publish]},
        "subscribe": {"allow": list(subscribe)},
    }


def _exports(name: str, permissions: Permissions, place: Place) -> Iterator[dict[str, Any]]:
    """Yield what the stream's account exports to one other."""
    for subject in _at_the_stream(permissions.publish, place):
        # A pull is answered by several messages, and by none if there are none.
        many = ".MSG.NEXT." in subject
        yield {
            "service": subject,
            "accounts": [_account(name)],
            **({"response_type": "Stream"} if many else {}),
        }
    for subject in _at_the_stream(permissions.subscribe, place):
        yield {"stream": subject, "accounts": [_account(name)]}


def _imports(permissions: Permissions, place: Place) -> Iterator[dict[str, Any]]:
    """Yield what an account imports from that of the stream."""
    for subject in _at_the_stream(permissions.publish, place):
        service = {"account": STREAM_ACCOUNT, "subject": subject}
        yield {"service": service, "to": _as_imported(subject)}
    for subject in _at_the_stream(permissions.subscribe, place):
        yield {"stream": {"account": STREAM_ACCOUNT, "subject": subject}}


def _own_exports(name: str, layout: Layout) -> Iterator[dict[str, Any]]:
    """Yield what the account of a service exports to the others, whom it tells so without the stream."""
    if name not in layout.services:
        return
    others = [_account(other) for other in layout.services if other != name]
    yield {"stream": layout.place.subject(f"receipts.*.{name}.>"), "accounts": others}
    yield {"stream": layout.place.subject(ROLLED_BACK), "accounts": others}


def _imports_of_others(name: str, layout: Layout) -> Iterator[dict[str, Any]]:
    if name not in layout.services:
        return
    for other in layout.services:
        if other != name:
            subjects = [f"receipts.{name}.{other}.>"]
            if name == layout.services[0]:
                subjects.append(ROLLED_BACK)
            for subject in subjects:
                source = {"account": _account(other), "subject": layout.place.subject(subject)}
                yield {"stream": source}


def _at_the_stream(subjects: Iterable[str], place: Place) -> Iterator[str]:
    """Yield the subjects of the stream's account: requests, acknowledgements, events."""
    others = tuple(place.subject(word) for word in ("receipts.", "ended.", "broker."))
    for subject in subjects:
        if not subject.startswith(("_INBOX", *others)):
            yield subject


def _as_imported(subject: str) -> str:
    return API + subject[len(API_PREFIX) :] if subject.startswith(f"{API_PREFIX}.") else subject
