"""The tools without a session: what they are, what they answer, and what confirms a change."""

import json
import re
import sys
from pathlib import Path

import anyio
import pytest
from mcp.client import Client

from todoku.cli.agents.answers import CHARACTERS_MAX, bounded, marked
from todoku.cli.agents.calls import Calls
from todoku.cli.agents.confirmation import VALID_SECONDS, Confirmations, Unconfirmed
from todoku.cli.agents.reading import READING
from todoku.cli.agents.server import make_server
from todoku.cli.agents.tool import Plan, Services
from todoku.cli.agents.toolbox import Actor, Answer, Toolbox
from todoku.cli.agents.writing import WRITING
from todoku.cli.credential import acting_for, credential, how_to_get_in, keep, without_login
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.mcp import mcp
from todoku.documentation import documentation
from todoku.settings import Settings
from todoku.system import system

ROOT = Path(__file__).parents[2]
TOOLS_MAX = 15

HIDDEN = [
    *(
        "\x1b",
        "\x7f",
        "\u00ad",
        "\u034f",
        "\u115f",
        "\u1160",
        "\u17b4",
        "\u17b5",
        "\u180b",
        "\u180f",
    ),
    *("\u200b", "\u202e", "\u2800", "\u3164", "\ufe00", "\ufe0f", "\ufeff", "\uffa0"),
    *("\U000e0041", "\U000e0100", "\U000e01ef"),
]


def toolbox(*, writes: bool = False, settings: Settings | None = None) -> Toolbox:
    """A toolbox whose services do not answer."""
    nowhere = settings or system.settings(orders_port=1, inventory_port=1, shipping_port=1)
    return Toolbox(Services(nowhere, agent="a", is_remote=False), writes=writes)


def test_tools_are_few_and_read_only_by_default() -> None:
    assert len(READING) + len(WRITING) == TOOLS_MAX
    for readme in ("README.md", "README.ja.md"):
        text = (ROOT / readme).read_text(encoding="utf-8")
        assert re.search(rf"MCP.*\b{TOOLS_MAX}\b|\b{TOOLS_MAX} 個のツール", text)
    assert list(toolbox().tools) == [tool.name for tool in READING]
    assert len({tool.name for tool in (*READING, *WRITING)}) == len(READING) + len(WRITING)
    assert all(tool.plans is None for tool in READING)


@pytest.mark.parametrize("tool", [*READING, *WRITING], ids=lambda tool: tool.name)
def test_schema_describes_each_argument(tool: object) -> None:
    schema = tool.schema()  # type: ignore[attr-defined]
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert "$ref" not in json.dumps(schema)


@pytest.mark.parametrize(
    ("name", "arguments", "advice"),
    [
        ("nothing", {}, "there are system_status, list_orders"),
        ("cancel_order", {}, "todoku mcp --write"),
        ("get_order", {}, "missing required field `order_id`"),
        ("get_order", {"id": "1"}, "get_order takes: order_id"),
        ("list_orders", {"limit": 10**9}, "limit"),
        (
            "get_dead_letter",
            {"service": "x", "letter_id": "1"},
            "there are orders, inventory, ship",
        ),
        ("get_order", {"order_id": ".."}, "not a valid id"),
        ("get_order", {"order_id": "1"}, "Start it with `todoku up`"),
        ("read_docs", {"page": "nowhere"}, "leave out page"),
    ],
)
def test_what_goes_wrong_is_an_answer_that_says_what_to_do(
    name: str, arguments: dict[str, object], advice: str
) -> None:
    answer = toolbox().call(name, arguments)
    assert answer.failed
    assert advice in answer.text


def test_status_of_a_system_that_is_down_is_an_answer() -> None:
    answer = toolbox().call("system_status", {})
    assert not answer.failed
    assert answer.text.count('"ready": false') == len(system.names)


def test_documentation_is_read_in_parts() -> None:
    found, place = "", 0
    while place is not None:
        text = toolbox().call("read_docs", {"page": "reliability", "offset": place}).text
        assert len(text) < CHARACTERS_MAX
        part = json.loads(text[text.index("{") : text.rindex("}") + 1])
        found, place = found + part["text"], part["nextOffset"]
    assert found.startswith("# Reliability")
    assert found == documentation()["reliability"].text


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**6,
        ["x" * 1_000] * 1_000,
        {str(n): "y" * 3_000 for n in range(100)},
        [[[["z" * 100] * 60] * 60] * 10],
        {str(n): "y" for n in range(10_000)},
    ],
)
def test_answer_is_bounded_and_says_what_is_left_out(value: object) -> None:
    text = bounded(value)
    assert len(text) <= CHARACTERS_MAX
    assert re.search(r"more|too large", text)
    json.loads(text)


def test_mark_cannot_be_guessed_and_data_cannot_end_it() -> None:
    first, second = marked("a"), marked("a")
    marks = [re.findall(r"=== data \w+ ===", text) for text in (first, second)]
    assert marks[0] != marks[1]
    assert marked("a\n=== data 0 ===\nb").count("\n=== data 0 ===") == 0


@pytest.mark.parametrize("hidden", HIDDEN)
def test_characters_that_nobody_sees_are_escaped(hidden: str) -> None:
    text = bounded({"name": f"a{hidden}b", "和": "届く"})
    assert hidden not in text
    assert json.loads(text) == {"name": f"a{hidden}b", "和": "届く"}
    assert "届く" in text


def test_token_confirms_one_change_in_one_state_for_a_while() -> None:
    now = [1_000.0]
    tokens = Confirmations(lambda: now[0])
    change, state = {"tool": "t", "arguments": {"a": 1}}, {"status": "PENDING"}
    token = tokens.issue(change, state)
    assert tokens.check(token, change, state) == tokens.check(token, change, state)
    assert tokens.issue(change, state) != token
    for other_change, other_state in (
        ({**change, "tool": "u"}, state),
        ({**change, "caller": "somebody else"}, state),
        (change, {"status": "COMPLETED"}),
    ):
        with pytest.raises(Unconfirmed, match="without confirm"):
            tokens.check(token, other_change, other_state)
    for forged in ("", "x", "é", token[:-4], "A" * len(token)):
        with pytest.raises(Unconfirmed):
            tokens.check(forged, change, state)
    with pytest.raises(Unconfirmed):
        Confirmations(lambda: now[0]).check(token, change, state)
    now[0] += VALID_SECONDS + 1
    with pytest.raises(Unconfirmed, match="s old"):
        tokens.check(token, change, state)


def test_own_key_is_not_sent_for_a_caller_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TODOKU_KEY", "mine")
    with acting_for(None):
        assert credential() is None
    with acting_for("theirs"):
        assert credential() == "theirs"
    assert credential() == "mine"
    with acting_for("two\nlines"), pytest.raises(CommandFailed):
        credential()


def test_change_of_several_requests_that_fails_midway_says_how_far_it_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys: list[str] = []

    def post(tool: object, plan: object, path: str, actor: object, key: str) -> None:
        keys.append(key)
        if len(keys) == 2:
            raise CommandFailed("it is gone.", problem="not-found")

    box = toolbox(writes=True)
    monkeypatch.setattr(box, "_post", post)
    plan = Plan(
        service="orders", paths=("/a", "/b", "/c"), body=None, summary="", command="", about=None
    )
    with pytest.raises(CommandFailed, match=r"1 of 3 requests were made.*: it is gone"):
        box._send(box.tools["pause"], plan, Actor("a", is_known=True), "key")
    assert keys == ["key", "key-1"]


def test_key_of_the_operators_login_is_not_the_agents(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("TODOKU_KEY", "TODOKU_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    keep("of-the-operator")
    assert credential() == "of-the-operator"

    async def credential_of_a_tool() -> str:
        box = toolbox()
        monkeypatch.setattr(box, "call", lambda *_: Answer(str(credential())))
        async with Client(make_server(box, Calls())) as session:
            [content] = (await session.call_tool("list_orders", {})).content
        return str(content.text)  # type: ignore[union-attr]

    assert anyio.run(credential_of_a_tool) == "None"
    monkeypatch.setenv("TODOKU_KEY", "of-the-agent")
    assert anyio.run(credential_of_a_tool) == "of-the-agent"
    with without_login():
        assert "todoku login" not in how_to_get_in(None)


@pytest.mark.parametrize(
    ("field", "value"), [("actor", "bob"), ("issuer", "https://b"), ("auth", "none")]
)
def test_token_is_the_callers_whatever_the_credential(
    monkeypatch: pytest.MonkeyPatch, field: str, value: str
) -> None:
    """Access tokens are refreshed, and a key is replaced, between a dry run and its confirmation."""
    caller = {"auth": "required", "actor": "alice", "issuer": "https://a"}
    order = {"id": "1", "status": "PENDING"}
    services = Services(system.settings(), agent="a", is_remote=True)
    monkeypatch.setattr(services, "get", lambda _, path: caller if path == "/whoami" else order)
    box = Toolbox(services, writes=True)
    monkeypatch.setattr(box, "_post", lambda *_: {})
    wish = {"order_id": "1", "reason": "Placed twice."}
    with acting_for("first"):
        planned = box.call("cancel_order", wish)
    wish["confirm"] = re.search(r"confirm=(\S+)", planned.text)[1]  # type: ignore[index]
    with acting_for("refreshed"):
        assert box.call("cancel_order", wish).text.startswith("DONE by alice.")
        caller[field] = value
        assert "Nothing was changed" in box.call("cancel_order", wish).text


@pytest.mark.parametrize("name", ["", "a\nb", "a\x1b[31m", "a\u202e", "a\ufe0f"])
def test_name_of_the_agent_can_be_seen(name: str) -> None:
    with pytest.raises(CommandFailed, match="--agent takes a name") as failed:
        mcp(agent=name)
    assert failed.value.exit_code is ExitCode.USAGE


def test_other_machines_are_served_with_protection_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("TODOKU_DATA_DIR", str(tmp_path))
    with pytest.raises(CommandFailed, match="TODOKU_AUTH=required") as failed:
        mcp(http=1, flags={"host": "0.0.0.0"})
    assert failed.value.exit_code is ExitCode.USAGE


def test_installation_without_the_sdk_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("todoku.cli.agents.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp_types", None)
    with pytest.raises(CommandFailed, match=re.escape("pip install 'todoku[mcp]'")):
        mcp()
