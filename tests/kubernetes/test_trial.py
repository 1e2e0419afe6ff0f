"""The manifests of the trial are valid, and what is wrong in a trial is told."""

from string import Template

import kubernetes_validate
import pytest
import yaml

from kubernetes.prove import HERE, judge

VERSIONS = ["1.35", "1.36", "1.37"]
NAMES = ("image", "nats_image", "postgres_image", "release", "rate", "customers")
CLEAN = {
    "lost": 0,
    "beyond": 0,
    "shared": 0,
    "not_ended": 0,
    "wrong": [],
    "errors": {"connection closed": 2, "503 shutting-down": 1, "409 request-in-progress": 1},
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", ["dependencies.yaml", "pods.yaml"])
def test_manifests_are_valid(file: str, version: str) -> None:
    filled = Template((HERE / file).read_text()).substitute(dict.fromkeys(NAMES, "x"))
    for manifest in yaml.safe_load_all(filled):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_answers_after_which_a_request_is_repeated_are_no_problem() -> None:
    assert judge(CLEAN) == []


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ({"lost": 1}, "1 orders were accepted and do not exist"),
        ({"beyond": 2}, "2 orders exist that nobody placed, or twice"),
        ({"shared": 1}, "1 orders were the answer to two requests"),
        ({"not_ended": 3}, "3 orders have not ended"),
        ({"wrong": ["500 b''"]}, "a client saw 500 b''"),
        ({"errors": {"no answer": 4}}, "a client saw 4 times: no answer"),
    ],
)
def test_everything_else_is_told(found: dict[str, object], problem: str) -> None:
    assert judge(CLEAN | found) == [problem]
