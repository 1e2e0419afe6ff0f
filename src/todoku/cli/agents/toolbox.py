"""Call the tools: check the arguments, ask for confirmation of changes, and answer with a text."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from todoku.cli.agents.answers import escaped, marked
from todoku.cli.agents.confirmation import VALID_SECONDS, Confirmations, Unconfirmed
from todoku.cli.agents.reading import READING
from todoku.cli.agents.tool import Plan, Services, Tool
from todoku.cli.agents.writing import WRITING
from todoku.cli.errors import CommandFailed

DRY_RUN: Final = (
    "DRY RUN: nothing was changed. To do it, call {tool} again with the same arguments and confirm={token}"
    " within {seconds} s. Do so only if the user whom you work for wants this change."
)
DONE: Final = "DONE by {actor}."
UNKNOWN_TOOL: Final = "There is no tool {name!r}: there are {names}."
NOT_OFFERED: Final = (
    "The tool {name!r} changes something, and this server only reads. Whoever runs it starts it with"
    " `todoku mcp --write` for that."
)

UNAUTHENTICATED: Final = "unauthenticated"
WITHOUT_KEY: Final = (
    "The services ask for a credential. Whoever runs this server sets TODOKU_KEY_FILE to a file with an API"
    " key, which `todoku key create` makes."
)
WITHOUT_KEY_HTTP: Final = "The services ask for a credential. Send it as `Authorization: Bearer …`."

log = structlog.get_logger()


class Answer(NamedTuple):
    """The text of an answer, and whether the call failed."""

    text: str
    failed: bool = False


class Actor(NamedTuple):
    """Who makes a change: `is_known` if a credential says it, so that the audit log has it. An access token's
    `issuer` is set."""

    name: str
    is_known: bool
    issuer: str | None = None


class Toolbox:
    """All tools that are offered; those that change something only if it `writes`."""

    def __init__(
        self, services: Services, *, writes: bool, confirmations: Confirmations | None = None
    ) -> None:
        self.tools = {tool.name: tool for tool in (*READING, *(WRITING if writes else ()))}
        self._services = services
        self._hint = WITHOUT_KEY_HTTP if services.is_remote else WITHOUT_KEY
        self._confirmations = confirmations or Confirmations()

    def call(self, name: str, arguments: Mapping[str, Any]) -> Answer:
        """Call a tool; whatever goes wrong is an answer, too, which says what to do."""
        tool = self.tools.get(name)
        if tool is None:
            return Answer(self._unknown(name), failed=True)
        try:
            given = msgspec.convert(arguments, tool.arguments)
        except msgspec.ValidationError as error:
            known = ", ".join(tool.arguments.__struct_fields__) or "none"
            return Answer(f"Invalid arguments: {error}. {name} takes: {known}.", failed=True)
        try:
            if tool.plans is not None:
                return self._change(tool, tool.plans(self._services, given), given)
            assert tool.reads is not None
            return Answer(marked(tool.reads(self._services, given)))
        except Unconfirmed as unconfirmed:
            return Answer(str(unconfirmed), failed=True)
        except CommandFailed as failure:
            found = {"failed": str(failure).removeprefix("todoku: ")}
            hint = f"{self._hint}\n\n" if failure.problem == UNAUTHENTICATED else ""
            return Answer(f"{hint}{marked(found)}", failed=True)

    def _change(self, tool: Tool, plan: Plan, given: Any) -> Answer:
        actor = self._actor()
        asked = {
            name: value for name, value in msgspec.to_builtins(given).items() if name != "confirm"
        }
        change = {"tool": tool.name, "arguments": asked, "caller": actor}
        if given.confirm is None:
            token = self._confirmations.issue(change, plan.about)
            told = DRY_RUN.format(tool=tool.name, token=token, seconds=VALID_SECONDS)
            return Answer(f"{told}\n\n{marked(_shown(plan, actor))}")
        key = self._confirmations.check(given.confirm, change, plan.about)
        answer = self._send(tool, plan, actor, key)
        return Answer(f"{DONE.format(actor=escaped(actor.name))}\n\n{marked(answer)}")

    def _send(self, tool: Tool, plan: Plan, actor: Actor, key: str) -> Any:
        """Send all requests of a plan, each with an idempotency key of its own; the first that fails is the
        last."""
        answers: list[Any] = []
        for path in plan.paths:
            own_key = f"{key}-{len(answers)}" if answers else key
            try:
                answers.append(self._post(tool, plan, path, actor, own_key))
            except CommandFailed as failure:
                if not answers:
                    raise
                cause = str(failure).removeprefix("todoku: ")
                raise CommandFailed(
                    f"{len(answers)} of {len(plan.paths)} requests were made, then one failed: {cause}",
                    exit_code=failure.exit_code,
                    problem=failure.problem,
                ) from failure
        return answers[0] if len(answers) == 1 else answers

    def _post(self, tool: Tool, plan: Plan, path: str, actor: Actor, key: str) -> Any:
        body = None if plan.body is None else _body(plan, plan.body, actor)
        service = self._services.client(plan.service)
        log_line = log.bind(tool=tool.name, actor=actor.name, request=f"POST {path}")
        try:
            answer = service.send(
                "POST",
                path,
                b"" if body is None else msgspec.json.encode(body),
                find_out="Look at the state of what it is about before you repeat it.",
                key=key,
            )
        except CommandFailed as failure:
            log_line.warning("agent_change_failed", problem=failure.problem)
            raise
        log_line.info("agent_changed")
        return service.read(answer, object)

    def _actor(self) -> Actor:
        """Return who is taken for the actor: whom the credential stands for, else the agent's name."""
        caller = self._services.get(self._services.names[0], "/whoami")
        if caller["auth"] == "required":
            return Actor(str(caller["actor"]), is_known=True, issuer=caller.get("issuer"))
        return Actor(self._services.agent, is_known=False)

    def _unknown(self, name: str) -> str:
        if any(tool.name == name for tool in WRITING):
            return NOT_OFFERED.format(name=name)
        return UNKNOWN_TOOL.format(name=name[:100], names=", ".join(self.tools))


def _body(plan: Plan, body: Mapping[str, Any], actor: Actor) -> Mapping[str, Any]:
    """Return the body with who decides it, as far as no credential says it and there is a place for it."""
    if actor.is_known:
        return body
    if plan.takes_by:
        return {**body, "by": actor.name}
    return {**body, "reason": f"{actor.name}: {body['reason']}"}


def _shown(plan: Plan, actor: Actor) -> dict[str, Any]:
    recorded = (
        "in the audit log, as whom the credential stands for"
        if actor.is_known
        else "as a name only: the services look at no credentials (auth = none)"
    )
    return {
        "wouldDo": plan.summary,
        "requests": [f"POST {path} at {plan.service}" for path in plan.paths],
        "body": plan.body,
        "sameAsCommand": plan.command,
        "actor": actor.name,
        "actorIsRecorded": recorded,
        "about": plan.about,
    }
