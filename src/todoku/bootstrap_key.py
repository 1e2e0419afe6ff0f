"""The first API key, in a file that the settings name."""

import os
from pathlib import Path
from typing import Final

from todoku.engine import Process
from todoku.identity.keys import ApiKey, new_key, parse
from todoku.identity.scopes import ROLES
from todoku.settings import SettingsInvalid
from todoku.web.backend import Backend
from todoku.web.keys import api_keys

OWNER: Final = "bootstrap"


async def ensure_bootstrap_key(path: Path, process: Process, backend: Backend) -> None:
    """Make the key of this file valid, with the role operator; make the file if there is none. A key that
    was revoked stays so. Raises `SettingsInvalid`."""
    parsed = parse(read_or_make(path))
    if parsed is None:
        raise SettingsInvalid(
            [
                f"bootstrap_key_file {path} has no API key (tdk_…): correct it, or delete it for a new one."
            ]
        )
    key_id, digest = parsed
    if key_id in await backend.read(api_keys.read):
        return
    await process.change_key(
        ApiKey(
            id=key_id,
            digest=digest,
            owner=OWNER,
            scopes=tuple(sorted(ROLES["operator"])),
            created_at=process.clock.now(),
        )
    )


def read_or_make(path: Path) -> str:
    """Return the key in the file, which is made if there is none. Raises `SettingsInvalid`."""
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_text(encoding="utf-8").strip()
        key, _ = new_key()
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{key}\n")
        return key
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(
            [f"bootstrap_key_file {path} can be neither read nor made: {error}."]
        ) from error
