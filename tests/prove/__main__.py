"""Explore every state that the shipped decisions can reach: `make prove`."""

import argparse
import sys
from collections.abc import Mapping
from typing import Any, Final

from prove.exploration import Result, Violation, explore
from prove.shop import shop

STANDARD: Final[Mapping[str, Mapping[str, Any]]] = {
    "1 order, asked twice to cancel": {"quantities": [1], "cancellations": 2, "republishes": True},
    "1 order of 2, and pieces cancelled": {
        "quantities": [2],
        "stock": 2,
        "lines": 1,
        "deadlines": False,
        "republishes": True,
    },
    "1 order, held and cancelled": {"quantities": [1], "holds": 1, "deadlines": False},
    "1 order, placed held, held again": {
        "quantities": [1],
        "cancellations": 0,
        "holds": 1,
        "held": True,
        "deadlines": False,
        "republishes": True,
    },
    "2 orders, 1 piece": {},
    "2 orders, 1 piece, then 1 more": {"restocks": 1, "deadlines": False},
    "2 orders, 2 pieces": {"stock": 2, "deadlines": False},
    "orders of 1 and 2, 2 pieces": {"quantities": [1, 2], "stock": 2, "deadlines": False},
    "3 orders, 1 piece, uncancelled": {
        "quantities": [1, 1, 1],
        "cancellations": 0,
        "deadlines": False,
    },
}
"""What is explored without flags."""


def main() -> int:
    """Explore, and print what was found; return 1 if an invariant is broken."""
    flags = vars(_flags())
    states_max = flags.pop("states_max")
    scenarios = {"as the flags say": flags} if flags else STANDARD
    print(f"{'':<36}{'states':>12}{'transitions':>14}{'quiescent':>11}{'seconds':>9}")
    for name, options in scenarios.items():
        result = explore(shop(**options), states_max)
        print(_line(name, result), flush=True)
        if result.violation is not None:
            print(_path(result.violation))
        if result.violation is not None or not result.closed:
            return 1
    return 0


def _flags() -> argparse.Namespace:
    """Return the flags that are set."""
    parser = argparse.ArgumentParser(
        prog="python -m prove", description=__doc__, argument_default=argparse.SUPPRESS
    )
    parser.add_argument("--quantities", type=int, nargs="+", metavar="N", help="of each order")
    parser.add_argument("--stock", type=int, metavar="N", help="pieces at first")
    parser.add_argument("--cancellations", type=int, metavar="N", help="requests an order at most")
    parser.add_argument("--lines", type=int, metavar="N", help="pieces of an order cancelled")
    parser.add_argument("--holds", type=int, metavar="N", help="holds of an order at most")
    parser.add_argument("--held", action="store_true", help="orders are placed with a hold")
    parser.add_argument("--restocks", type=int, metavar="N", help="pieces that may arrive")
    parser.add_argument(
        "--no-deadlines", dest="deadlines", action="store_false", help="no deadline passes"
    )
    parser.add_argument(
        "--republishes", action="store_true", help="services republish what they know"
    )
    parser.add_argument("--states-max", type=int, default=None, metavar="N", help="give up then")
    return parser.parse_args()


def _line(name: str, found: Result) -> str:
    numbers = (
        f"{found.states:>12,}{found.transitions:>14,}{found.quiescent:>11,}{found.seconds:>9.1f}"
    )
    return f"{name:<36}{numbers}{'' if found.closed else '  not closed: there are more states'}"


def _path(violation: Violation) -> str:
    steps = (f"{number:>4}  {step}" for number, step in enumerate(violation.path, start=1))
    return "\n".join((f"\n{violation.problem}", *steps))


if __name__ == "__main__":
    sys.exit(main())
