"""Prove that every trace is whole: place orders while services are killed, and check all that was exported.

make traces ARGS="--orders 10000 --rate 100"
"""

import sys
import tempfile
from argparse import ArgumentParser
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from telemetry.receiver import attributes, receiving, torn, traces
from todoku.lab.chaos.run import ChaosPlan, run_chaos
from todoku.lab.databases import order_ids
from todoku.lab.stack import Stack, isolated_settings, running_stack
from todoku.settings import to_environment

PROBLEMS_SHOWN = 20
SERVED = ("POST /orders", "process orders.created", "process inventory.reserved", "BookParcel")
UNSERVED = ("POST /orders", "process orders.created", "process inventory.reservation_failed")


def main() -> int:
    """Run the proof; return 1 if a trace is torn."""
    options = ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--orders", type=int, default=10_000)
    options.add_argument("--rate", type=float, default=100.0)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--messages", choices=("parent", "link"), default="parent")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, receiving() as receiver:
        settings = isolated_settings(
            Path(folder, "data"), traces="otlp", trace_messages=chosen.messages
        )
        environment = to_environment(settings) | {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": receiver.url
        }
        stack = Stack(settings, Path(folder, "log"), environment=environment)
        plan = ChaosPlan(
            seed=chosen.seed,
            seconds=chosen.orders / chosen.rate,
            orders_per_second=chosen.rate,
            settle_seconds=120.0,
            faults=("service killed",),
        )
        with running_stack(stack):
            report = run_chaos(stack, plan, report=print)
        orders = set(order_ids(settings))
        left = [*Path(folder, "data", "traces").glob("*.spans")]
    spans = receiver.spans
    found = traces(spans)
    problems = [
        f"trace {trace}: {problem}" for trace, each in found.items() for problem in torn(each)
    ]
    of_order: dict[str, set[str]] = defaultdict(set)
    for span in spans:
        subject = attributes(span).get("cloudevents.event_subject")
        if subject in orders:
            of_order[subject].add(span.trace_id.hex())
    problems += [
        f"order {key} is in {len(ids)} traces" for key, ids in of_order.items() if len(ids) != 1
    ]
    problems += [f"order {key} has no trace" for key in orders - of_order.keys()]
    if chosen.messages == "parent":
        for key, ids in of_order.items():
            names = {span.name for trace in ids for span in found[trace]}
            parts = UNSERVED if UNSERVED[-1] in names else SERVED
            problems += [f"order {key} lacks {part}" for part in parts if part not in names]
    problems += [f"{path.name} was not exported" for path in left]
    kills = sum(report.faults.values())
    print(
        f"{len(orders):,} orders, {kills} services killed: {len(spans):,} spans in {len(found):,} traces;"
        f" {len(problems):,} problems"
    )
    for problem in problems[:PROBLEMS_SHOWN]:
        print(f"  {problem}")
    for name, count in Counter(span.name for span in spans).most_common(12):
        print(f"  {count:>8,}  {name}")
    return 1 if problems or not kills or not orders else 0


if __name__ == "__main__":
    sys.exit(main())
