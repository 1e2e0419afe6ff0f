"""`todoku bench` with several processes of each service, on a real PostgreSQL server."""

import json
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import Engine

from bench.running import bench
from conformance.conftest import temporary_database
from todoku.cli.exit_codes import ExitCode
from todoku.system import system


def test_replicas_share_the_databases_and_are_all_measured(
    postgres_server: Engine, tmp_path: Path
) -> None:
    with ExitStack() as databases:
        urls = [
            word
            for name in system.names
            for word in (
                f"--{name}-database-url",
                databases.enter_context(temporary_database(postgres_server)),
            )
        ]
        load = ("--orders", "20", "--products", "4", "--replicas", "2")
        answer = bench(tmp_path, *load, *urls, "--json")
    assert answer.returncode == ExitCode.OK, answer.stderr
    report = json.loads(answer.stdout)
    assert report["endings"] == {"COMPLETED": 20}
    assert report["broken"] == []
    for name in system.names:
        assert {name, f"{name}-2"} <= report["costs"].keys()
