"""Personal data: everything about a person can be exported and erased, also from what is restored later."""

from todoku.engine.persons.commands import (
    ErasedPerson,
    ErasePerson,
    PersonError,
    PersonHasOpenWork,
    UnknownPerson,
)
from todoku.engine.persons.erasures import Erasure, Erasures
from todoku.engine.persons.export import exported, rows_about
from todoku.engine.persons.file import ErasureFile
from todoku.engine.persons.handler import PersonHandler, keep_erasure
from todoku.engine.persons.part import IsPerson, OpenWork, Owner, Persons
from todoku.engine.persons.scrub import ERASED, scrubbed

__all__ = [
    "ERASED",
    "ErasePerson",
    "ErasedPerson",
    "Erasure",
    "ErasureFile",
    "Erasures",
    "IsPerson",
    "OpenWork",
    "Owner",
    "PersonError",
    "PersonHandler",
    "PersonHasOpenWork",
    "Persons",
    "UnknownPerson",
    "exported",
    "keep_erasure",
    "rows_about",
    "scrubbed",
]
