"""Write the pages of this folder that follow from the code: `make docs`.

With `--check` nothing is written; the pages that are out of date are named, and the exit code is 1.
"""

import asyncio
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from prometheus_client.core import Metric
from rich.console import Console

from todoku.cli import COMMANDS, application
from todoku.cli.exit_codes import ExitCode
from todoku.console.problems import PROBLEM_TYPES as CONSOLE_PROBLEM_TYPES
from todoku.descriptor import ServiceDescriptor, resolve
from todoku.engine import Topology
from todoku.engine.testing import MemoryBroker, inline, make_process, memory_database
from todoku.events import Event
from todoku.lifecycle import Lifecycle, Status
from todoku.service_metrics import ServiceMetrics
from todoku.settings import Setting, to_text
from todoku.system import system
from todoku.web import Backend, asyncapi, problems
from todoku.web.application import shared_operations
from todoku.web.metrics import Metrics
from todoku.web.operations import Operation
from todoku.web.system import system_operation

DOCS = Path(__file__).parent
GENERATED = (
    "<!-- Written by docs/generate.py: change the code that it describes, then run `make docs`. -->"
)

LIFECYCLES = tuple(resolve(each.audit).lifecycle for each in system if each.audit)


def pages() -> Iterator[tuple[Path, str]]:
    """Yield every page that follows from the code, with its current text."""
    yield DOCS / "commands.md", command_reference()
    yield DOCS / "configuration.md", configuration()
    yield DOCS / "problems.md", problem_reference()
    yield DOCS / "http.md", http_reference()
    yield DOCS / "metrics.md", metric_reference()
    yield DOCS / "events.md", event_reference()
    yield DOCS / "asyncapi.json", as_json(events_document())
    for page in sorted(DOCS.glob("**/*.md")):
        text = page.read_text(encoding="utf-8")
        filled = with_lifecycles(with_files(text))
        if filled != text:
            yield page, filled


def command_reference() -> str:
    sections = "\n".join(_command_section(words) for words in _commands())
    return f"""# Commands

{GENERATED}

Results go to stdout, messages to stderr; `--json` is for programs. Every [setting](configuration.md)
that a command reads is also one of its flags; `--help` lists them. `todoku --install-completion`
installs completion for your shell.

```text
{ExitCode.explained()}
```

{sections}"""


def _commands() -> Iterator[tuple[str, ...]]:
    """Yield every command, in the order of the help."""
    for name in COMMANDS:
        group = application(name)[name]
        parts = sorted(part for part in group if not part.startswith("-"))
        yield from ((name, part) for part in parts) if parts else [(name,)]


def _command_section(words: tuple[str, ...]) -> str:
    told = StringIO()
    console = Console(file=told, width=92, color_system=None, force_terminal=False)
    application(words[0]).help_print(words, console=console)
    text = told.getvalue().partition("\nExit codes:")[0].partition("╭─ Settings")[0]
    lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
    return f"## todoku {' '.join(words)}\n\n```text\n{lines}\n```\n"


def configuration() -> str:
    rows = "\n".join(_setting_row(setting) for setting in system.declared.values())
    return f"""# Configuration

{GENERATED}

The value of a setting is the first of: a flag, an environment variable, a TOML file, the default. The
file is `todoku.toml` in the working directory, or the file that `TODOKU_CONFIG` names; its keys are the
names below. Invalid values are reported at the start, with their origin and the allowed values.
`todoku config` shows every value and its origin, and warns about `TODOKU_` variables that look like
misspelt settings.

```toml
# todoku.toml
data_dir = "/var/lib/todoku"
orders_port = 9080
carrier_delay_seconds = "0.5..2"
```

What there is to set follows from the services of the system: each has a port and a database by its name,
and those settings that it declares. `system` names the list of services, for one in a package of your own
for instance `TODOKU_SYSTEM=loyalty.system:system`, as in `examples/loyalty/`.

| name, variable | default | allowed | meaning |
|---|---|---|---|
{rows}

`todoku up` sets `demo_catalogue` to `true` unless it is set. Addresses of databases are
`postgresql://user:password@host/name` (needs `pip install 'todoku[postgres]'`) or a path.

Addresses that hold a password or a token are refused as flags, since the process list shows those. Each of
these variables has a twin that names a file with the value, as container platforms mount secrets:
`TODOKU_NATS_URL_FILE=/run/secrets/nats_url`.

`port_base` moves all ports: with `--port-base 9000` the services get 9000, 9001, … in the order of the
system, and the embedded broker the next one. A port that is set itself keeps its value.
"""


def _setting_row(setting: Setting) -> str:
    default = "" if setting.default in (None, "") else f"`{to_text(setting.default)}`"
    return (
        f"| `{setting.name}`<br>`{setting.variable}` | {default} | {setting.allowed} "
        f"| {setting.meaning} |"
    )


def problem_reference() -> str:
    return f"""# Problems

{GENERATED}

Every error response is an RFC 9457 problem, `application/problem+json`. `type` is the address of a page
about it, which every service serves under `/problems/`; `detail` says what is wrong in this case and what
to do; `errors` points to the field or the parameter.

```json
{{
  "type": "/problems/invalid-body",
  "title": "The body is invalid",
  "status": 422,
  "detail": "#/items/0/quantity: Must be at least 1.",
  "errors": [{{"detail": "Must be at least 1.", "pointer": "#/items/0/quantity"}}]
}}
```

{problems.reference(_problem_types())}"""


def _problem_types() -> Sequence[problems.ProblemType]:
    """Return those of all services."""
    apis = [service.build_api(cast(Backend, None)) for service in system]
    shared = [kind for each in shared_operations(cast(Backend, None)) for kind in each.problems]
    return problems.ordered(
        [*shared, *CONSOLE_PROBLEM_TYPES, *(kind for api in apis for kind in api.problem_types)]
    )


def http_reference() -> str:
    settings = system.settings()
    # The routes are only described here: no backend is needed for that.
    backend = cast(Backend, None)
    sections = "\n".join(
        f"## {service.name}: `{settings.http_url(service.name)}`\n\n"
        f"{_operations(service.build_api(backend).operations)}"
        for service in system
    )
    return f"""# HTTP

{GENERATED}

Requests and responses are JSON: names in camelCase, times in UTC, money in minor units of an ISO 4217
currency. Unknown fields and parameters are refused, and a body where none is taken. Lists are paginated:
follow `nextCursor` or the `Link` header; new items do not move the boundaries of a page. Errors are
[problems](problems.md).

Each service also serves its OpenAPI 3.1 document at `/openapi.json`, documentation to read and try at
`/docs`, its events at `/asyncapi.json`, Prometheus metrics at `/metrics`, a liveness check at `/livez`
and a readiness check at `/readyz` (it checks the database, the writer and that all loops run; not the
broker, because orders are accepted without it). `/` lists these addresses. All of it works offline.

{sections}
## On each service

{_operations([*shared_operations(backend), system_operation("", system.settings(), backend)])}
{BEHIND_A_PROXY}"""


BEHIND_A_PROXY: Final = """\
## Repeating and waiting

`POST` takes an `Idempotency-Key`: [repeat a request safely](how-to/repeat-requests.md).

`POST /orders` takes `Prefer: wait=N` (RFC 7240): the response comes when the order has ended, or after N
seconds, at most 60. It is 201 either way, shows the order as it is by then, and has the header
`Preference-Applied: wait=N`. At most 1,000 requests wait in a process; further ones are answered at once,
without that header. All are answered when the service stops.

## A copy of all orders

`GET /changes` is one feed of every event of every order ([decision 35](decisions/0035-feeds.md)). Each page
says with `next` where to go on, so a copy is kept by one loop:

```text
after = what was stored with the copy, or nothing
loop:
  page = GET /changes?limit=1000&after=…   with Prefer: wait=30
  410: discard the copy, after = nothing
  apply page.items and store page.next, in one transaction
```

`examples/copy_orders.py` is such a loop; `todoku events export` writes the events to a file. `position`
counts the events without a gap. An event stands behind all that the service knew when it recorded it; two
events of other services may have overtaken each other on their way. At most 100 requests wait for events in a
process; further ones are answered at once.

## Streams

`GET /orders/stream` and `GET /orders/{orderId}/stream` are server-sent events, for browsers and whoever wants
to see at once what happens:

```js
const stream = new EventSource("/orders/stream?userId=user123");
stream.onmessage = ({ data }) => console.log(JSON.parse(data).type);
```

A client that was interrupted sends the `id` of its last event as `Last-Event-ID`, as an EventSource does by
itself: to any process, and nothing is missed or repeated. A comment comes every 15 s while nothing happens,
and in a stream with filters an `id` without `data` from time to time. A process has 500 streams at most;
further ones get 503. What waits for a slow client is at most 64 KiB: it is sent to at its own pace, and
disconnected if it reads nothing for 30 s. When the service stops, all streams end.

## Names and pages

A service that listens on a loopback address, as by default, answers under the names of this machine only:
`localhost`, `*.localhost`, `127.0.0.1`, `[::1]`. Any other Host is answered with 421 `unknown-host`, so
that a web page which leads its reader's browser here by a change of DNS sees nothing. `public_hosts` adds
names, such as the one that a proxy forwards; a service that listens on another address checks the Host
only if it is set. Where the Host is checked, a request that changes something and that a browser sends
for a page of another site (`Origin`, `Sec-Fetch-Site`) is answered with 403 `foreign-page`. `/livez`
and `/readyz` are open under any name, and `/metrics` where it needs a credential.

Pages of a service are in no frame, load scripts only from the service and nothing from other servers
(`Content-Security-Policy`). `cors_origins` names other sites whose pages may call it from a browser (CORS);
their scripts send a bearer token, cookies are never allowed.

## Behind a proxy

Services speak HTTP/1.1. An idle connection stays open for 75 s (`keep_alive_seconds`): longer than the
60 s for which balancers commonly reuse one, so that no request meets a closing connection.

A proxy that publishes a service under a path prefix strips the prefix and sends it in
`X-Forwarded-Prefix`. With `trust_forwarded_prefix`, `Location`, `Link`, the pages and the OpenAPI
document then have the prefix. Leave it off where clients reach the service directly.

`behind_proxy` says that clients reach the service through a proxy only. Then the last address in
`X-Forwarded-For` is taken for the client's; where that header is missing, the last one in `Forwarded`
(RFC 7239). The proxy has to add the client's address to one of them and to remove the other: without
`behind_proxy`, both are ignored, since any client can send them. For nginx:

```nginx
location /shop/orders/ {
    proxy_pass http://127.0.0.1:8080/;
    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header Connection "";
    proxy_set_header X-Forwarded-Prefix /shop/orders;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header Forwarded "";
}
```

Its `$host` belongs into `public_hosts` where the service listens on a loopback address.

## TLS

With `tls_cert` and `tls_key` a service speaks HTTPS (TLS 1.2 or later). It looks at both files every 5 s and
uses a new certificate for new connections; open ones stay. A file that cannot be used is logged
(`certificate_not_reloaded`), and the old one stays in use. On another address than a loopback one, a service
starts only with TLS or with `behind_proxy`. Commands on the same machine trust the certificate of the
settings; for `--url https://…` they trust the system's authorities, or `tls_ca`. `todoku doctor` warns two
weeks before the certificate ends.

## Rate limits

Each caller has quotas: a credential, or without one the address that a request comes from (of IPv6, its
network, /64). They are off on a loopback address without accounts; `rate_limits` turns them on or off.

- `requests`: all requests but `/livez`, `/readyz` and `/metrics`; `rate_limit_requests_per_second`, and
  `rate_limit_burst_requests` at once.
- `costly`: `POST /dead-letters/retry`, `POST /events/send-again` and `POST /catalogue/publish`;
  `rate_limit_costly_per_minute`.
- `failures`: wrong credentials, by address; `rate_limit_failures_per_minute`. Right ones from the same
  address are still served.

Responses tell what is left, in the headers of draft-ietf-httpapi-ratelimit-headers-11:

```text
RateLimit-Policy: "requests";q=1000;w=2
RateLimit: "requests";r=997;t=1
```

A caller may send `q` requests at once, and as many come back in `w` seconds; `r` are left, and one more
comes within `t` seconds. A request above that is answered with 429 `rate-limited`, `Retry-After` and
`violated-policies`. The quotas are those of one process: of three replicas a caller has three times as
much. A process tells 20,000 callers a policy apart, in some megabytes; those that come while all of these
are still using their quotas share one.
"""


def _operations(operations: Iterable[Operation]) -> str:
    rows = "\n".join(_operation_row(operation) for operation in operations)
    return f"| request | responses | purpose |\n|---|---|---|\n{rows}\n"


def _operation_row(operation: Operation) -> str:
    answers = ", ".join(str(response.status) for response in operation.responses)
    return f"| `{operation.method} {operation.path}` | {answers} | {operation.summary} |"


def metric_reference() -> str:
    by_service = {service.name: asyncio.run(_metrics_of(service)) for service in system}
    everywhere = set.intersection(*map(set, by_service.values()))
    everything = {name: row for rows in by_service.values() for name, row in rows.items()}
    own = "\n".join(
        f"## {service}\n\n{_metric_rows(row for name, row in rows.items() if name not in everywhere)}"
        for service, rows in by_service.items()
        if rows.keys() - everywhere
    )
    return f"""# Metrics

{GENERATED}

Each service serves its metrics for Prometheus at `/metrics`. Names and units follow Prometheus'
conventions: a counter ends in `_total`, a histogram has `_bucket`, `_sum` and `_count`, times are in seconds.

Counters and histograms are those of the process, from its start. What is read from the database is read at
the scrape, by an index, with a limit, and at most every five seconds; a database that does not answer delays
no scrape (`todoku_database_metrics_age_seconds`). Where several processes share a database, take the `max`
of those over the processes, not the `sum`, except for `todoku_outbox_…`: each process has its own events.

{own}
## Every service

{_metric_rows(everything[name] for name in sorted(everywhere))}"""


async def _metrics_of(descriptor: ServiceDescriptor) -> dict[str, str]:
    """Return a row for each metric of a service, by name."""
    services = system.build(system.settings())
    service = next(each for each in services if each.name == descriptor.name)
    with memory_database(service) as database:
        broker = MemoryBroker()
        process = make_process(service, broker, Topology(services), database)
        backend = Backend(process=process, database=database, run_read=inline)
        metrics = ServiceMetrics.of(descriptor, process, backend)
        await metrics.refresh()
        families = Metrics(metrics.collectors).registry.collect()
        rows = ((_metric_name(family), family) for family in families)
        return {
            name: f"| `{name}` | {family.type} | {family.documentation} |"
            for name, family in sorted(rows)
        }


def _metric_name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def _metric_rows(rows: Iterable[str]) -> str:
    return "| metric | type | meaning |\n|---|---|---|\n" + "".join(f"{row}\n" for row in rows)


def event_reference() -> str:
    document = events_document()
    sections = "\n".join(
        _event_section(event, document)
        for event in asyncapi.events_of(system.build(system.settings()))
    )
    return f"""# Events

{GENERATED}

{asyncapi.ABOUT}

The same as an AsyncAPI 3 document: [asyncapi.json](asyncapi.json). A running service serves its own part
of it at `/asyncapi.json`.

{sections}
## Receipts

On `receipts.PUBLISHER.SUBSCRIBER.PROCESS`, over core NATS: the ids of events that a subscriber has in its
database. The process is the one that published them: each message names it in the header `Todoku-Owner`; one
without that header has its receipts on `receipts.PUBLISHER`, as in version 0.2. On
PostgreSQL also `ended.SERVICE`: the keys of what a replica has ended, for requests that wait at another.

```json
{{"reader": "inventory", "ids": ["0198c2f0-7b1a-8d6a-…"]}}
```
"""


def _event_section(event: type[Event], document: dict[str, Any]) -> str:
    name = event.__name__
    channel, message = document["channels"][name], document["components"]["messages"][name]
    example = as_json(message["examples"][0]["payload"])
    return f"""## {name}

`{channel["address"]}`. {channel["description"]}

{message["summary"]}

```json
{example}```
"""


def events_document() -> dict[str, Any]:
    settings = system.settings()
    return asyncapi.document(
        system.build(settings), broker_url=settings.broker_url, examples=system.examples()
    )


def as_json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def with_files(text: str) -> str:
    """Return the page with the contents of each file named by `<!-- file: … -->`."""

    def fill(match: re.Match[str]) -> str:
        code = (DOCS / match["path"]).read_text(encoding="utf-8")
        return f"{match['marker']}\n{match['fence']}\n{code}```\n"

    return re.sub(
        r"(?P<marker><!-- file: (?P<path>\S+) -->)\n(?P<fence>```\w+)\n.*?^```\n",
        fill,
        text,
        flags=re.DOTALL | re.MULTILINE,
    )


def with_lifecycles(text: str) -> str:
    """Return the page with the lifecycle of each entity between the two marks."""
    shown = "\n\n".join(map(_lifecycle, LIFECYCLES))
    return re.sub(
        r"(<!-- lifecycles -->\n).*?(<!-- /lifecycles -->\n)",
        lambda match: f"{match[1]}{shown}\n\n{match[2]}",
        text,
        flags=re.DOTALL,
    )


def _lifecycle(lifecycle: Lifecycle[Any]) -> str:
    rows = "\n".join(_status_row(status) for status in lifecycle.statuses)
    return f"""The lifecycle of {article(lifecycle.entity)}:

```text
{lifecycle.diagram()}
```

| status | meaning | ends | implies |
|---|---|---|---|
{rows}"""


def article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _status_row(status: Status) -> str:
    ends = "yes" if status.terminal else ""
    implied = "; ".join(
        f"{entity} {' or '.join(f'`{name}`' if name else 'none' for name in allowed)}"
        for entity, allowed in status.stage.implies.items()
    )
    return f"| `{status}` | {status.stage.meaning} | {ends} | {implied} |"


def main(arguments: list[str]) -> int:
    stale = [
        (page, text)
        for page, text in pages()
        if not page.exists() or page.read_text(encoding="utf-8") != text
    ]
    check = "--check" in arguments
    for page, text in stale:
        print(f"{'out of date' if check else 'written'}: {page.relative_to(DOCS.parent)}")
        if not check:
            page.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
