"""Run the checks that the services contribute."""

from collections.abc import Container, Iterator
from typing import Final

import msgspec

from todoku.cli.client import client
from todoku.cli.errors import CommandFailed
from todoku.descriptor import resolve
from todoku.diagnosis import CheckResult, Checks, warning
from todoku.settings import Settings
from todoku.system import load_system

TIMEOUT_SECONDS = 2.0

REMEDY: Final = "`todoku whoami` says who you are and what you may do; `todoku login` changes it"


def services(settings: Settings, running: Container[str]) -> Iterator[CheckResult]:
    """Check each service of `running`, those that respond."""
    for service in load_system(settings):
        if service.checks is not None and service.name in running:
            yield from _checked(service.name, resolve(service.checks), settings)


def _checked(name: str, checks: Checks, settings: Settings) -> Iterator[CheckResult]:
    try:
        reader = client(name, None, settings, timeout_seconds=TIMEOUT_SECONDS)
        yield from checks(lambda path, items_max: reader.list(path, {}, items_max=items_max))
    except CommandFailed as failure:
        if failure.problem is None:
            yield warning(name, "its checks got no answer", fix=failure.summary)
        else:
            yield warning(name, f"its checks were refused: {failure.summary}", fix=REMEDY)
    except msgspec.DecodeError as error:
        yield warning(name, f"its checks cannot read the answer: {error}", fix="update todoku here")
