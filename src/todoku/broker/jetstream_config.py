"""Decide which settings of the stream and its durables must be corrected.

Todoku relies on the fields named here. All others (replicas, placement, compression, …) and larger
limits belong to the operator. Pure functions: configurations in, configurations out, as JSON objects.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Config = Mapping[str, Any]

CONFIG_VERSION = 1
"""Raise this whenever the wanted settings change: a process leaves alone what a newer one has set."""

VERSION_KEY = "todoku.version"
EPOCH_KEY = "todoku.epoch"
"""Metadata of a stream that tells its epoch from earlier ones of the same stream."""

EARLIER_EPOCHS_KEY = "todoku.earlier-epochs"
"""Metadata of a stream that was rolled back: `Progress.earlier_epochs` as JSON."""

SET_KEY = "todoku.set."
"""Prefix for the metadata with the limits that Todoku set last: other values are the operator's."""

STREAM_FIELDS: Config = {
    "retention": "limits",  # Others drop messages that a durable may still need.
    "discard": "old",  # `new` halts publishing when the stream is full.
    "discard_new_per_subject": False,
    "storage": "file",
    "max_msgs": -1,
    "max_msgs_per_subject": -1,
    "max_msg_size": -1,
    "max_consumers": -1,
    "no_ack": False,
    "sealed": False,
    "allow_atomic": True,
    "allow_msg_counter": False,
    "persist_mode": None,
    "mirror": None,
    "sources": None,
    "subject_transform": None,
    "republish": None,
    "consumer_limits": None,
}
"""What each of these must be; None and False mean absent."""

REWRITING = ("mirror", "sources", "subject_transform", "republish")
"""What stores or sends messages under subjects on which they were not published. Whoever may create a stream
could forge events with it, so it is corrected whatever version the metadata names."""

STREAM_LIMITS = ("max_age", "max_bytes", "num_replicas")
"""Limits that may be larger than wanted; 0 and -1 are unlimited."""

STREAM_FIXED = (
    "sealed",
    "retention",
    "storage",
    "mirror",
    "persist_mode",
    "allow_msg_counter",
)
"""Fields that JetStream does not change back: the stream must be created again."""

START_KEY = "todoku_start"
"""The metadata of a durable that does not start at the beginning of the stream."""

DURABLE_FIELDS: Config = {
    "filter_subject": None,
    "deliver_policy": "all",
    "opt_start_seq": None,
    "opt_start_time": None,
    "ack_policy": "explicit",
    "replay_policy": "instant",
    "max_deliver": -1,  # Any other number drops the message silently.
    "backoff": None,  # It would replace `ack_wait`.
    "headers_only": False,
    "max_batch": None,
    "max_expires": None,
    "max_bytes": None,
    "inactive_threshold": None,
    "mem_storage": False,
    "deliver_subject": None,
    "priority_policy": None,
    "priority_groups": None,
    "priority_timeout": None,
}
DURABLE_LIMITS = ("max_ack_pending", "max_waiting")

DURABLE_FIXED = (
    "deliver_policy",
    "opt_start_seq",
    "opt_start_time",
    "ack_policy",
    "replay_policy",
    "max_waiting",
    "mem_storage",
    "deliver_subject",
)
"""Fields that JetStream does not change back: the durable must be created again."""


def corrected_stream(held: Config, wanted: Config, *, starting: bool = False) -> dict[str, Any]:
    """Return what a stream's configuration must be; equal to `held` if nothing is wrong.

    `wanted` holds the subjects and the limits. A limit is lowered only when `starting`, and only if
    Todoku itself had set it, so that processes with different settings do not alternate. Of what a newer
    version has set, only what rewrites messages is corrected.
    """
    if _version(held) > CONFIG_VERSION:
        return _with_fields(held, {name: STREAM_FIELDS[name] for name in REWRITING})
    limits = {
        name: _limit(name, held, wanted, may_lower=starting)
        for name in STREAM_LIMITS
        if name in wanted
    }
    corrected = _with_fields(held, STREAM_FIELDS)
    corrected.update(limits, subjects=merged(held.get("subjects") or (), wanted["subjects"]))
    corrected["metadata"] = {
        **(held.get("metadata") or {}),
        **_version_metadata(),
        **{f"{SET_KEY}{name}": str(wanted[name]) for name in limits if starting},
    }
    return corrected


def corrected_durable(held: Config, wanted: Config) -> dict[str, Any]:
    """Return what a durable's configuration must be; equal to `held` if nothing is wrong."""
    if _version(held) > CONFIG_VERSION:
        return dict(held)
    fields = {**DURABLE_FIELDS, **_chosen_start(held), "ack_wait": wanted["ack_wait"]}
    corrected = _with_fields(held, fields)
    for name in DURABLE_LIMITS:
        corrected[name] = _limit(name, held, wanted, may_lower=False)
    subjects = [s for s in held.get("filter_subjects") or () if not _covers_more(s, wanted)]
    corrected["filter_subjects"] = merged(subjects, wanted["filter_subjects"])
    corrected["metadata"] = {**(held.get("metadata") or {}), **_version_metadata()}
    return corrected


def new_stream(wanted: Config) -> dict[str, Any]:
    """Return the configuration for a stream that does not exist yet."""
    limits = {f"{SET_KEY}{name}": str(wanted[name]) for name in STREAM_LIMITS if name in wanted}
    fields = {name: value for name, value in STREAM_FIELDS.items() if value}
    return {**fields, **wanted, "metadata": {**_version_metadata(), **limits}}


def new_durable(wanted: Config, start_after: int = 0) -> dict[str, Any]:
    """Return the configuration for a durable that does not exist yet, and starts behind a sequence."""
    fields = {name: value for name, value in DURABLE_FIELDS.items() if value}
    metadata = _version_metadata()
    if start_after:
        fields |= {"deliver_policy": "by_start_sequence", "opt_start_seq": start_after + 1}
        metadata[START_KEY] = str(start_after + 1)
    return {**fields, **wanted, "metadata": metadata}


def _chosen_start(held: Config) -> dict[str, Any]:
    """Return the fields of the start that Todoku chose when it created the durable."""
    sequence = held.get("opt_start_seq")
    if sequence is None or (held.get("metadata") or {}).get(START_KEY) != str(sequence):
        return {}
    return {"deliver_policy": "by_start_sequence", "opt_start_seq": sequence}


def differences(held: Config, corrected: Config) -> dict[str, str]:
    """Return "held → wanted" for each field that must change, metadata aside."""
    return {
        name: f"{held.get(name)!r} → {corrected.get(name)!r}"
        for name in sorted({*held, *corrected} - {"metadata"})
        if held.get(name) != corrected.get(name)
    }


def merged(held: Iterable[str], wanted: Sequence[str]) -> list[str]:
    """Return held and wanted subjects in one list without overlaps, which JetStream refuses.

    A held subject stays if it covers a wanted one (instead of it) or overlaps with none: an older
    process does not remove what a newer one has added.
    """
    wider = [h for h in held if any(_covers(h, w) for w in wanted)]
    needed = [w for w in wanted if not any(_covers(h, w) for h in wider)]
    kept = [h for h in held if h in wider or not any(_overlap(h, w) for w in wanted)]
    kept = [h for h in kept if not any(_overlap(h, n) for n in needed)]
    return kept + needed


def _with_fields(held: Config, fields: Config) -> dict[str, Any]:
    """Return `held` with these fields; an absent field stays absent where that means the same."""
    corrected = dict(held)
    for name, value in fields.items():
        if value:
            corrected[name] = value
        elif held.get(name) and held[name] != "default":
            del corrected[name]
    return corrected


def _limit(name: str, held: Config, wanted: Config, *, may_lower: bool) -> int:
    ours = int(wanted[name])
    theirs = held.get(name)
    if theirs is None or _size(theirs) < _size(ours):
        return ours
    set_by_todoku = (held.get("metadata") or {}).get(f"{SET_KEY}{name}") == str(theirs)
    return ours if may_lower and set_by_todoku else int(theirs)


def _size(limit: int) -> float:
    return limit if limit > 0 else float("inf")


def _version(held: Config) -> int:
    text = (held.get("metadata") or {}).get(VERSION_KEY, "0")
    return int(text) if text.isascii() and text.isdigit() else 0


def _version_metadata() -> dict[str, str]:
    return {VERSION_KEY: str(CONFIG_VERSION)}


def _covers_more(subject: str, wanted: Config) -> bool:
    """Return whether a filter lets pass more than what is wanted."""
    return any(subject != w and _covers(subject, w) for w in wanted["filter_subjects"])


def _covers(wide: str, narrow: str) -> bool:
    """Return whether every subject that matches `narrow` matches `wide` too."""
    wide_tokens, narrow_tokens = wide.split("."), narrow.split(".")
    for n, token in enumerate(wide_tokens):
        if token == ">":
            return len(narrow_tokens) > n
        if n >= len(narrow_tokens) or narrow_tokens[n] == ">":
            return False
        if token not in ("*", narrow_tokens[n]):
            return False
    return len(wide_tokens) == len(narrow_tokens)


def _overlap(one: str, other: str) -> bool:
    """Return whether some subject matches both."""
    one_tokens, other_tokens = one.split("."), other.split(".")
    for a, b in zip(one_tokens, other_tokens, strict=False):
        if ">" in (a, b):
            return True
        if "*" not in (a, b) and a != b:
            return False
    return len(one_tokens) == len(other_tokens)
