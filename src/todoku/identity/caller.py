"""Who sends a request."""

from dataclasses import dataclass

from starlette.authentication import BaseUser


@dataclass(frozen=True)
class Caller(BaseUser):
    """Who sends a request, as its credential says.

    `subject` is whom the credential stands for: the actor of what is done with it, and, for `:own` scopes,
    the `userId`. `key_id` is that of an API key, None for an access token, whose
    `issuer` is set.
    """

    subject: str
    scopes: frozenset[str]
    key_id: str | None = None
    issuer: str | None = None

    @property
    def actor(self) -> str:
        """The actor of what is done with this credential."""
        return self.subject

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def display_name(self) -> str:
        return self.subject

    @property
    def identity(self) -> str:
        return self.subject
