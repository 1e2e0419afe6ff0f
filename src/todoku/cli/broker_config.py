"""`todoku broker-config`: write the configuration and the credentials of external NATS servers."""

import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from todoku.broker.credentials import FOLDER, SeedUnusable, make_seeds
from todoku.broker.permissions import Place
from todoku.broker.server_config import API, Cluster, Layout, server_config
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Flags, settings_from
from todoku.cli.options import Folder, Texts
from todoku.local.privacy import protect
from todoku.settings import Settings
from todoku.system import RESERVED_NAMES, SERVICE_NAME, load_system

PASSWORD_FILE = "cluster-password"
PASSWORD_BYTES = 24
NODE = "nats"


def broker_config(
    destination: Folder,
    *,
    node: Texts = (),
    listener: Texts = (),
    store_dir: str = "/data",
    flags: Flags = None,
) -> ExitCode:
    """Write the configuration and the credentials of your own NATS servers.

    Writes DESTINATION/NODE.conf for each server, and a seed for each service in
    DESTINATION/credentials/. Seeds that are there are kept, so run it again after
    you have added a service or a listener. Each service may publish its own events
    only; `up` in credentials/ may do everything, `reader` only looks.

    For example:

        todoku broker-config deploy/nats
        todoku broker-config deploy/nats --node nats-1 --node nats-2 --node nats-3
        todoku broker-config deploy/nats --listener loyalty

    Parameters
    ----------
    node
        The name of a server under which the others of its cluster reach it; repeat it
        for each. Without it, one server called nats.
    listener
        A program outside the system that may consume all events, through a durable
        consumer of this name, and publish none. May be repeated.
    store_dir
        Where the servers keep their files.
    """
    settings = settings_from(flags).settings
    layout = Layout(_place(settings), load_system(settings).names, listener)
    _require_names(layout, node)
    nodes = node or (NODE,)
    try:
        written = list(_write(destination, layout, nodes, store_dir, settings))
    except (SeedUnusable, OSError) as error:
        raise CommandFailed(f"{destination} cannot be written: {error}") from error
    for path in written:
        print(path)
    print()
    print("Services connect with these settings; each needs its own seed only:")
    print()
    print(f"  TODOKU_NATS_URL={','.join(f'nats://{name}:4222' for name in nodes)}")
    print(f"  TODOKU_NATS_SEED_FILE={destination.absolute() / FOLDER / '{service}.nk'}")
    print(f"  TODOKU_NATS_API_PREFIX='{API}'")
    return ExitCode.OK


def _place(settings: Settings) -> Place:
    return Place(settings.stream_name, settings.subject_prefix)


def _require_names(layout: Layout, nodes: Sequence[str]) -> None:
    taken = {*layout.services, *RESERVED_NAMES}
    for name in layout.listeners:
        if not SERVICE_NAME.fullmatch(name) or name in taken:
            raise CommandFailed(
                f"a listener cannot be called {name!r}: use lower-case letters, digits and _, and"
                f" none of {', '.join(sorted(taken))}",
                exit_code=ExitCode.USAGE,
            )
        taken.add(name)
    for name in nodes:
        if not all(character.isalnum() or character in "-._" for character in name) or not name:
            raise CommandFailed(f"a node cannot be called {name!r}", exit_code=ExitCode.USAGE)
    if len(set(nodes)) < len(nodes) or len(nodes) == 2:
        raise CommandFailed(
            "a cluster has three nodes or more, all of different names: two cannot go on without one",
            exit_code=ExitCode.USAGE,
        )


def _write(
    folder: Path, layout: Layout, nodes: Sequence[str], store_dir: str, settings: Settings
) -> Iterator[Path]:
    """Write everything, and yield what was written."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    protect(folder, ())
    keys = make_seeds(folder / FOLDER, layout.names)
    cluster = Cluster(tuple(nodes), _password(folder)) if len(nodes) > 1 else None
    for node in nodes:
        config = server_config(
            layout,
            keys,
            node=node,
            store_dir=store_dir,
            stream_max_bytes=settings.stream_max_bytes,
            cluster=cluster,
        )
        path = folder / f"{node}.conf"
        # A new file: a link that somebody planted in its place is removed, not followed.
        path.unlink(missing_ok=True)
        _create(path, msgspec.json.format(msgspec.json.encode(config)))
        yield path
    yield from (folder / FOLDER / f"{name}.nk" for name in layout.names)


def _password(folder: Path) -> str:
    """Return the password of the cluster's servers, made at the first time."""
    path = folder / FOLDER / PASSWORD_FILE
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        password = secrets.token_hex(PASSWORD_BYTES)
        _create(path, password.encode())
        return password


def _create(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
