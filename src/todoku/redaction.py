"""Hide secrets in texts: in addresses, connection strings, headers, and messages that quote them.

What cannot be parsed with certainty is hidden: a text may lose more than its secrets, never less.
"""

import re
from urllib.parse import unquote

HIDDEN = "***"

PLACEHOLDERS = ("USER:PASSWORD@HOST", "USER@HOST", "HOST")
"""How advice writes an address."""

SHOWN_PARAMETERS = frozenset(
    {
        *("application_name", "client_encoding", "connect_timeout", "cursor", "dbname", "host"),
        *("hostaddr", "gssencmode", "keepalives", "keepalives_count", "keepalives_idle", "limit"),
        *("passfile", "password_file"),
        *("keepalives_interval", "load_balance_hosts", "port", "require_auth", "sslcert", "sslcrl"),
        *("sslkey", "sslmode", "sslrootcert", "target_session_attrs", "tcp_user_timeout", "user"),
    }
)
"""The parameters of an address whose values are shown; all others are hidden."""

SECRET_PARAMETERS = frozenset({"password", "sslpassword", "token"})
"""The hidden parameters whose names are shown."""

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
NEXT_IN_LIST = re.compile(rf",(?={SCHEME.pattern})")
NEXT_IN_SENTENCE = re.compile(rf"[\s,'\"`(<=](?={SCHEME.pattern})")

POSTGRESQL_USER = re.compile(r"^(postgres\w*(?:\+\w+)?://)[\w.%-]+@(?=[^@]*\Z)")
HOST = r"(?:\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?)?(?::\d{1,5})?"
HOSTS = re.compile(rf"{HOST}(?:,{HOST})*")
"""One host or several as in PostgreSQL, each with or without a port."""

HEADER_IN_ADVICE = "(?-i:Authorization: Bearer …`)"
"""How advice writes a header, in backticks: no credential has an ellipsis, as headers are ASCII."""

SECRET_NAME = (
    r"\w*(?:password|passwd|passphrase|pwd|secret|token|api_?key|credentials?|authorization|cookie)"
)
START = re.compile(
    rf"(?P<scheme>{SCHEME.pattern})"
    rf"|(?<!\w)(?!{HEADER_IN_ADVICE})(?P<assignment>{SECRET_NAME}[\"']?\s*[=:]\s*)"
    # user:password@host without a scheme; not product:quantity@price, whose last part is a number.
    r"|(?P<bare>(?<![^\s,;'\"`(<=:@])(?!(?-i:PRODUCT:QUANTITY@PRICE))[^\s,;'\"`(<=:@]+:(?:(?!://)\S)*@)"
    r"(?=\S)(?!-?\d+[.,;:!?'\"`)]*(?:\s|\Z))"
    r"|\b(?P<bearer>bearer\s+)(?!(?-i:…`))\S+"
    # A seed of NATS, and a JSON Web Token.
    r"|\b(?P<key>(?-i:S[UAONXC][A-Z2-7]{56}\b|eyJ[\w-]+\.[\w.-]+))",
    re.IGNORECASE,
)

AT = re.compile(r"@(?=\S|\Z)")

QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
UNQUOTED = re.compile(r"(?:\\.|\S)*", re.DOTALL)
NEXT_ASSIGNMENT = re.compile(r"[\s,][\"']?\w+[\"']?\s*=|\n|\Z")
END_OF_WORD = re.compile(r"[\s'\"`<>]|\Z")
PUNCTUATION = re.compile(r"[.,:;!?)}]*\Z")


def redact(text: str) -> str:
    """Return a text without passwords, tokens and other secrets.

    Hides the user and password of every address, the parameters that are not known to be harmless,
    the values of names such as `password`, and an address that is ambiguous from its scheme on.
    """
    if SCHEME.match(text):
        return _list_of_addresses(text)
    shown, position = [], 0
    while match := START.search(text, position):
        shown.append(text[position : match.start()])
        replacement, position = _replacement(text, match)
        shown.append(replacement)
    return "".join([*shown, text[position:]])


def has_secret(text: str) -> bool:
    """Return whether a text holds a secret. A user of PostgreSQL without a password is none."""
    without_user = POSTGRESQL_USER.sub(r"\1", text)
    return redact(without_user) != without_user


def _list_of_addresses(text: str) -> str:
    """Redact a text that is nothing but addresses joined by commas."""
    first, *others = NEXT_IN_LIST.split(text)
    shown = _address(first)
    if shown.endswith(f"://{HIDDEN}"):
        return shown  # A password may hold a comma and a scheme.
    return ",".join([shown, *map(_address, others)])


def _replacement(text: str, match: "re.Match[str]") -> tuple[str, int]:
    """Return what is shown instead of a match, and where the text goes on."""
    match match.lastgroup:
        case "scheme":
            return _address_in_sentence(text, match.start())
        case "assignment":
            return match["assignment"] + HIDDEN, _end_of_value(text, match.end())
        case "bare":
            return f"{HIDDEN}@", match.end()
        case "bearer":
            return match["bearer"] + HIDDEN, match.end()
        case _:
            return HIDDEN, match.end()


def _address_in_sentence(text: str, start: int) -> tuple[str, int]:
    following = NEXT_IN_SENTENCE.search(text, start)
    limit = following.start() if following else len(text)
    end = min(_end_of_word(text, start), limit)
    last_at = max((at.start() for at in AT.finditer(text, start, limit)), default=-1)
    if last_at > end:
        # A password may hold spaces and quotes: what is before this @ may belong to it.
        scheme = SCHEME.match(text, start)
        assert scheme is not None
        return scheme[0] + HIDDEN, min(_end_of_word(text, last_at), limit)
    punctuation = PUNCTUATION.search(text[:end], start)
    assert punctuation is not None
    return _address(text[start : punctuation.start()]), punctuation.start()


def _end_of_word(text: str, start: int) -> int:
    match = END_OF_WORD.search(text, start)
    assert match is not None
    return match.start()


def _address(address: str) -> str:
    """Redact one address; hide all after its scheme if that is ambiguous."""
    scheme, rest = re.split("(?<=://)", address, maxsplit=1)
    if rest.startswith(PLACEHOLDERS):
        return address
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path, question_mark, query = rest[len(authority) :].partition("?")
    _, at, hosts = authority.rpartition("@")
    if not HOSTS.fullmatch(hosts) or re.search(r"[@#\s]", path + query):
        return scheme + HIDDEN
    shown = f"{HIDDEN}@{hosts}" if at else hosts
    return (
        scheme + shown + path + question_mark + "".join(map(_parameter, re.split("([&;])", query)))
    )


def _parameter(parameter: str) -> str:
    if parameter in ("&", ";", ""):
        return parameter
    name, equals, _ = parameter.partition("=")
    if equals and unquote(name) in SHOWN_PARAMETERS:
        return parameter
    # A name that is not known may be the rest of a password with a & in it.
    return f"{name}={HIDDEN}" if equals and unquote(name) in SECRET_PARAMETERS else HIDDEN


def _end_of_value(text: str, start: int) -> int:
    """Return where the value that begins at `start` has certainly ended."""
    if quoted := QUOTED.match(text, start):
        return quoted.end()
    unquoted = UNQUOTED.match(text, start)
    assert unquoted is not None
    following = NEXT_ASSIGNMENT.search(text, unquoted.end())
    assert following is not None
    return following.start()
