"""Entry point of the `todoku` program and of `python -m todoku`."""

import sys

INTERRUPTED = 130
"""The exit code for Ctrl-C, here without the import of `ExitCode`."""


def main() -> None:
    """Run the command line; Ctrl-C while it is imported ends it without a traceback, too."""
    try:
        from todoku import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
