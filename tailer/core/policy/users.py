"""Who a turn belongs to in Langfuse: the id, a keyed hash of it, or a name if the operator wants one."""

import hmac
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from tailer.core.librechat.bson_values import Document, filled_string

USER_FIELDS = ("email", "username", "name", "role", "provider", "tenantId")
"""The only fields of a user that may be read; everything else in that collection is secret or private."""
MEMBER_FIELD = "idOnTheSource"
"""What a group names its members by, where they come from a directory; read only where groups are."""


class UserIdChoice(StrEnum):
    """What Langfuse shows as the user."""

    ID = "id"
    HASH = "hash"
    EMAIL = "email"
    USERNAME = "username"


@dataclass(frozen=True, slots=True)
class User:
    """A row of `users`, as far as it is read, and the names of the `groups` that the user is a member of.

    `id_on_the_source` is the id in the directory that the user comes from (0.8.0). `groups` is None where they were not
    read."""

    user_id: str
    email: str | None
    username: str | None
    role: str | None
    id_on_the_source: str | None = None
    groups: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class UserNaming:
    """The operator's choice, with the secret that a hash needs."""

    choice: UserIdChoice = UserIdChoice.ID
    secret: bytes = b""

    def __repr__(self) -> str:
        """The choice only."""
        return f"UserNaming(choice={self.choice.value!r})"

    @property
    def needs_users(self) -> bool:
        """Whether users must be read."""
        return self.choice in (UserIdChoice.EMAIL, UserIdChoice.USERNAME)

    def name(self, user_id: str | None, user: User | None) -> str | None:
        """What to call a user: the id if the name is unknown, None without a user."""
        if user_id is None:
            return None
        match self.choice:
            case UserIdChoice.ID:
                return user_id
            case UserIdChoice.HASH:
                return hmac.new(self.secret, user_id.encode("utf-8", "surrogatepass"), sha256).hexdigest()[
                    :32
                ]
            case UserIdChoice.EMAIL:
                return (user.email if user is not None else None) or user_id
            case UserIdChoice.USERNAME:
                return (user.username if user is not None else None) or user_id


def read_user(user_id: str, document: Document) -> User:
    """Read a row of `users` that was projected to `USER_FIELDS`."""
    return User(
        user_id=user_id,
        email=filled_string(document.get("email")),
        username=filled_string(document.get("username")),
        role=filled_string(document.get("role")),
        id_on_the_source=filled_string(document.get(MEMBER_FIELD)),
    )
