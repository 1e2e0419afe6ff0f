"""Look up known vulnerabilities of locked dependencies with pip-audit; fail if no database can be reached."""

import subprocess
import sys
from pathlib import Path

SERVICES = ("pypi", "osv")
PIP_AUDIT = Path(sys.executable).with_name("pip-audit")


def audit(lock: str, service: str) -> tuple[int, str]:
    """Return pip-audit's exit code and what it printed. Dependencies that it cannot look up are a failure."""
    options = ["--strict", "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
    command = [PIP_AUDIT, *options, "--vulnerability-service", service, "--requirement", lock]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def main(locks: list[str]) -> int:
    """Audit each lock with the first database that answers."""
    failed = 0
    for lock in locks:
        attempts = {service: audit(lock, service) for service in SERVICES}
        looked_up = [text for code, text in attempts.values() if code == 0 or "Found " in text]
        if not looked_up:
            failed = 1
            print(
                f"{lock} was not audited: no database of vulnerabilities can be reached from here."
            )
            for service, (_, text) in attempts.items():
                print(f"  {service}: {(text.strip().splitlines() or ['no answer'])[-1][:300]}")
            continue
        print(f"{lock}: {looked_up[0].strip()}")
        failed |= any(code for code, text in attempts.values() if "Found " in text)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
