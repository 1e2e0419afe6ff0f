"""Send thousands of generated requests to connected services, with and without credentials: no server error.

`make fuzz` sends 20,000: python -m security.fuzz [CASES]
"""

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from tempfile import TemporaryDirectory

from anyio.from_thread import start_blocking_portal

from todoku.identity import Caller
from todoku.identity.scopes import ROLES
from todoku.settings import Span
from todoku.system import system
from todoku.web.guard import unauthenticated
from todoku.web.openapi import document
from web.edge import listening, running_together

CASES = 20_000
CREDENTIAL = "may-do-everything"
PHASES = "examples,coverage,fuzzing"
CASES_OF_COVERAGE = 60
"""How many cases of an operation the phases before the fuzzing make, roughly."""


@asynccontextmanager
async def running_system() -> AsyncIterator[dict[str, str]]:
    """Run the services, which ask for a credential; yield their addresses."""
    settings = system.settings(carrier_success_rate=0.5, carrier_delay_seconds=Span(0, 0))
    services = [(service.build(settings), service.build_api) for service in system]
    async with AsyncExitStack() as stack:
        running = running_together(services, authenticate=authenticate)
        addresses = {}
        for (service, _), app in zip(
            services, await stack.enter_async_context(running), strict=True
        ):
            host, port = await stack.enter_async_context(listening(app))
            addresses[service.name] = f"http://{host}:{port}"
        yield addresses


async def authenticate(credential: str) -> Caller:
    """Return a caller who may do everything, for one credential."""
    if credential != CREDENTIAL:
        raise unauthenticated("This credential is not known.", invalid=True)
    return Caller("fuzz", ROLES["operator"])


def operations() -> int:
    """Return how many operations the services have."""
    paths = (document(service.build_api(None))["paths"] for service in system)
    return sum(len(methods) for each in paths for methods in each.values())


def fuzz(address: str, credential: str | None, examples: int) -> tuple[bool, int]:
    """Return whether a service had no server error, and how many requests it got."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"),
        *(
            f"--phases={PHASES}",
            f"--max-examples={examples}",
            "--continue-on-failure",
            "--no-color",
        ),
        *("--checks=not_a_server_error", "--exclude-path-regex=/stream$"),
    ]
    if credential:
        command.append(f"--header=Authorization: Bearer {credential}")
    with TemporaryDirectory() as folder:  # It keeps what it has found.
        run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    made = re.search(r"([\d,]+) generated", run.stdout)
    if run.returncode:
        print(run.stdout, run.stderr, sep="\n")
    return run.returncode == 0, int(made[1].replace(",", "")) if made else 0


def main(cases: int) -> int:
    """Send at least so many requests; return 1 if one was answered with a server error."""
    examples = max(1, cases // (2 * operations()) - CASES_OF_COVERAGE)
    total, clean = 0, True
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(running_system()) as addresses,
    ):
        while clean and total < cases:
            for service, address in addresses.items():
                for credential in (None, CREDENTIAL):
                    good, made = fuzz(address, credential, examples)
                    total, clean = total + made, clean and good
                    what = "with" if credential else "without"
                    print(f"{service} {what} a credential: {made} requests", flush=True)
    print(f"{total} requests, {'no server error' if clean else 'server errors: see above'}")
    return 0 if clean and total >= cases else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else CASES))
