"""`python -m todoku` is `todoku`."""

from todoku.cli import main

main()
