"""A body with a name given twice is refused, whatever its strings contain."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from todoku.web.body import _require_unique_names
from todoku.web.problems import Problem

NAMES = st.sampled_from(["a", "b", "a:b", ":", "\\", '"'])
TEXTS = st.text(st.sampled_from('ab:,"\\ あ'), max_size=6)


class Members(list[tuple[str, Any]]):
    """The members of an object, in sequence."""


VALUES = st.recursive(
    st.none() | st.integers() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(st.tuples(NAMES, inner), max_size=4).map(Members)
    ),
    max_leaves=8,
)


def encoded(value: Any, escaped: bool) -> str:
    if isinstance(value, Members):
        pairs = (f"{encoded(n, escaped)}:{encoded(v, escaped)}" for n, v in value)
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(encoded(item, escaped) for item in value) + "]"
    text = json.dumps(value, ensure_ascii=False)
    return text.replace(":", "\\u003a") if escaped and isinstance(value, str) else text


def has_duplicates(value: Any) -> bool:
    if isinstance(value, Members):
        names = [name for name, _ in value]
        return len(set(names)) < len(names) or any(has_duplicates(v) for _, v in value)
    return isinstance(value, list) and any(map(has_duplicates, value))


@given(VALUES, st.booleans())
def test_names_given_twice_are_found_in_any_body(value: Any, escaped: bool) -> None:
    body = encoded(value, escaped).encode()
    if has_duplicates(value):
        with pytest.raises(Problem, match="Given more than once"):
            _require_unique_names(body)
    else:
        _require_unique_names(body)
