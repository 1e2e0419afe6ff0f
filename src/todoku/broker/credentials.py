"""Keep a seed (nkey) for each service in a folder: made once, readable by its owner only.

Source: docs.nats.io, "NKeys". The seed never leaves this machine; the server knows the public key.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

FOLDER = "credentials"
SEED_BYTES_MAX = 200
SEED = re.compile(r"SU[A-Z2-7]{56}")


class SeedUnusable(Exception):
    """Raised for a seed file that holds no seed. The message says what to do."""


def folder_of(data_dir: Path) -> Path:
    """Return where the seeds of the embedded broker are."""
    return data_dir / FOLDER


def seed_path(folder: Path, name: str) -> Path:
    """Return the file with a seed."""
    return folder / f"{name}.nk"


def make_seeds(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the public key of each name; make the seeds that are absent. Raises `SeedUnusable`."""
    folder.mkdir(mode=0o700, exist_ok=True)
    return {name: public_key(_found_or_made(seed_path(folder, name))) for name in names}


def read_seed(path: Path) -> str:
    """Return the seed in a file. Raises `SeedUnusable`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            seed = file.read(SEED_BYTES_MAX).decode("ascii").strip()
        public_key(seed)
    except OSError as error:
        raise SeedUnusable(f"the seed {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SeedUnusable(
            f"{path} holds no NATS user seed (`SU…`): correct it, or delete it and restart"
            " what made it"
        ) from error
    return seed


def public_key(seed: str) -> str:
    """Return the public key of a user's seed. Raises `ValueError`."""
    import nkeys  # Only those who use credentials pay for it.

    if not SEED.fullmatch(seed):
        raise ValueError("not a user's seed")
    return str(nkeys.from_seed(bytearray(seed.encode())).public_key.decode())


def sign(seed: str, nonce: str) -> str:
    """Return the signature with which a server's nonce is answered."""
    import base64

    import nkeys

    pair = nkeys.from_seed(bytearray(seed.encode()))
    return base64.b64encode(pair.sign(nonce.encode())).decode()


def _found_or_made(path: Path) -> str:
    try:
        return _made(path)
    except FileExistsError:
        return read_seed(path)


def _made(path: Path) -> str:
    """Write a new seed; a file appears with its content or not at all. Raises `FileExistsError`."""
    import nkeys

    if path.is_symlink() or path.exists():
        raise FileExistsError(path)
    seed: str = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER).decode()
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w") as file:
        file.write(f"{seed}\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    return seed
