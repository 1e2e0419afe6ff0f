"""Find the credential that commands send: in an environment variable, in a file that another one names, or in
that of `todoku login`; or that of a caller for whom this program acts."""

import contextlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import msgspec

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.output import note
from todoku.settings.loading import KEY_FILE_VARIABLE, KEY_VARIABLE

LENGTH_MAX = 16_384

OWN = object()
GIVEN = object()
_acting_for: ContextVar[object] = ContextVar("acting_for", default=OWN)


class Credential(msgspec.Struct, frozen=True):
    """A key or an access token, and where it comes from; `variable` if an environment variable says it."""

    value: str
    source: str
    variable: str | None = None


@contextmanager
def acting_for(key: str | None) -> Iterator[None]:
    """Send this credential, or none, instead of the user's own: in this task, or thread."""
    token = _acting_for.set(key)
    try:
        yield
    finally:
        _acting_for.reset(token)


@contextmanager
def without_login() -> Iterator[None]:
    """Send the credential that the environment gives, or none, but not that of `todoku login`: in this task,
    or thread."""
    token = _acting_for.set(GIVEN)
    try:
        yield
    finally:
        _acting_for.reset(token)


def credential() -> str | None:
    """Return the credential to send, None if there is none: the caller's for whom this program acts, else the
    user's own. Raises `CommandFailed`."""
    acting = _acting_for.get()
    if acting is GIVEN:
        given = _given_credential()
        return None if given is None else given.value
    if acting is not OWN:
        return None if acting is None else checked(str(acting), "the header Authorization")
    found = find_credential()
    return None if found is None else found.value


def find_credential() -> Credential | None:
    """Return the user's own credential and its source, None if there is none. Raises `CommandFailed`."""
    if (given := _given_credential()) is not None:
        return given
    path = login_file()
    if path is None or not path.exists():
        return None
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise _unusable(f"others can read {path}: make it yours alone with `chmod 600 {path}`.")
    return Credential(_read(path), f"{path} (todoku login)")


def _given_credential() -> Credential | None:
    """Return the credential that the environment has, or names the file of."""
    if key := os.environ.get(KEY_VARIABLE, "").strip():
        return Credential(checked(key, KEY_VARIABLE), f"the variable {KEY_VARIABLE}", KEY_VARIABLE)
    if named := os.environ.get(KEY_FILE_VARIABLE):
        key = _read(Path(named))
        warn_if_exposed(Path(named))
        return Credential(key, f"{named} ({KEY_FILE_VARIABLE})", KEY_FILE_VARIABLE)
    return None


def login_file() -> Path | None:
    """Return where `todoku login` keeps a credential (XDG Base Directory), None for a user without a home."""
    folder = os.environ.get("XDG_CONFIG_HOME")
    if folder and Path(folder).is_absolute():
        return Path(folder) / "todoku" / "key"
    try:
        return Path.home() / ".config" / "todoku" / "key"
    except RuntimeError:
        return None


def keep(key: str) -> Path:
    """Write a credential into the file of `todoku login`, which only the user can read. Raises
    `CommandFailed`."""
    path = login_file()
    if path is None:
        raise _unusable(f"you have no home directory to keep it in: use {KEY_FILE_VARIABLE}.")
    temporary = path.with_name(f".key-{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(temporary, flags, 0o600), "w", encoding="ascii") as file:
            file.write(f"{key}\n")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _unusable(f"{path} cannot be written: {error.strerror}.") from error
    return path


def forget() -> Path | None:
    """Delete the file of `todoku login`; return it, None if there was none. Raises `CommandFailed`."""
    path = login_file()
    try:
        if path is not None:
            path.unlink()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(f"{path} cannot be deleted: {error.strerror}.") from error
    return path


def checked(key: str, source: str) -> str:
    """Return a credential that can be sent in a header. Raises `CommandFailed`."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise _unusable(f"{source} has no credential, as it is empty or not one line of ASCII.")
    if len(key) > LENGTH_MAX:
        raise _unusable(
            f"{source} has no credential, as it is longer than {LENGTH_MAX:,} characters."
        )
    return key


def how_to_get_in(sent: str | None) -> str:
    """Say where the credential that was sent comes from, and how to give another one."""
    try:
        found = find_credential()
    except CommandFailed:
        found = None  # Another than the one that was sent.
    if sent is not None and found is not None and found.value == sent:
        source = f"It comes from {found.source}"
        if found.variable is not None and _acting_for.get() is not GIVEN:
            return (
                f"{source}, which is used before that of `todoku login`: correct it, or unset"
                f" {found.variable} and run `todoku login`."
            )
    else:
        source = "No credential was sent" if sent is None else "That was the one you gave"
    login = "" if _acting_for.get() is GIVEN else "run `todoku login`, or "
    return f"{source}: {login}set {KEY_VARIABLE}, or {KEY_FILE_VARIABLE} to a file with it."


def _read(path: Path) -> str:
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(f"the key in {path} cannot be read: {error}.") from error
    return checked(key, str(path))


@cache
def warn_if_exposed(path: Path) -> None:
    """Say once that other users can read a key file of this user. That of somebody else is no matter of the
    user's: secrets that a platform mounts."""
    with contextlib.suppress(OSError):
        file, folder = path.stat(), path.absolute().parent.stat()
        exposed = file.st_mode & 0o077 and folder.st_mode & 0o011
        if exposed and file.st_uid == os.geteuid():
            note(
                f"others can read {path}, which {KEY_FILE_VARIABLE} names: make it yours alone with"
                f" `chmod 600 {path}`."
            )


def _unusable(problem: str) -> CommandFailed:
    return CommandFailed(problem, exit_code=ExitCode.USAGE)
