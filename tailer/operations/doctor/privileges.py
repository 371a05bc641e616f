"""What a MongoDB user may do, compared with what the tailer needs for each feature."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tailer.operations.doctor.findings import Finding, failed, passed, warned

_WRITES: Final = frozenset({"insert", "update", "remove", "dropCollection", "dropDatabase", "createIndex"})
STREAMED: Final = ("messages", "conversations")
_OPTIONAL: Final = {
    "transactions": "billed cost and tokens",
    "agents": "the names and models of agents",
    "users": "e-mail, user name or role (naming of users, tags); rules and routes by role choose the strictest",
    "groups": "groups of users (tags); rules and routes by group choose the strictest",
}
_ROLES: Final = "deploy/mongodb/README.md has the commands"


@dataclass(frozen=True, slots=True)
class Rights:
    """The privileges of the connection's user as `connectionStatus` lists them; `user` is None without a log-in."""

    user: str | None
    privileges: Sequence[Mapping[str, Any]]

    def allows(self, action: str, database: str, collection: str) -> bool:
        """Whether an action on a collection is among the privileges."""
        return any(
            action in privilege["actions"] and _covers(privilege["resource"], database, collection)
            for privilege in self.privileges
        )

    def allows_on_cluster(self, action: str) -> bool:
        """Whether an action on the cluster is among the privileges."""
        return any(
            action in privilege["actions"]
            and (privilege["resource"].get("cluster") or privilege["resource"].get("anyResource"))
            for privilege in self.privileges
        )


def _covers(resource: Mapping[str, Any], database: str, collection: str) -> bool:
    if resource.get("anyResource"):
        return True
    return resource.get("db") in {"", database} and resource.get("collection") in {"", collection}


def judge_reading(
    rights: Rights, database: str, *, with_users: bool, with_groups: bool = False
) -> list[Finding]:
    """What the user may read of LibreChat's database, and whether it may do more than it needs."""
    if rights.user is None:
        return [
            passed(
                "privileges on LibreChat",
                "MongoDB asks for no log-in: everybody who reaches it may do everything",
            )
        ]
    missing = [
        f"{action} on {database}.{collection}"
        for collection in STREAMED
        for action in ("find", "changeStream")
        if not rights.allows(action, database, collection)
    ]
    if missing:
        return [failed("privileges on LibreChat", f"missing: {', '.join(missing)}", f"grant them; {_ROLES}")]
    return [
        passed("privileges on LibreChat", f"{rights.user} may read and follow messages and conversations"),
        *_judge_optional(rights, database, unused=_unused(with_users=with_users, with_groups=with_groups)),
        _judge_excess(rights, database),
    ]


def _unused(*, with_users: bool, with_groups: bool) -> frozenset[str]:
    wanted = {"users": with_users, "groups": with_groups}
    return frozenset(collection for collection, is_wanted in wanted.items() if not is_wanted)


def _judge_optional(rights: Rights, database: str, *, unused: frozenset[str]) -> Iterable[Finding]:
    for collection, use in _OPTIONAL.items():
        if collection in unused:
            continue
        if not rights.allows("find", database, collection):
            seen = f"find on {database}.{collection} is missing: no {use}"
            yield warned(f"privilege on {collection}", seen, f"grant it; {_ROLES}")


def _judge_excess(rights: Rights, database: str) -> Finding:
    excess = sorted(action for action in _WRITES if rights.allows(action, database, "messages"))
    if excess:
        return warned(
            "no more than needed",
            f"{rights.user} may also write LibreChat's messages ({', '.join(excess)})",
            f"give the tailer a user of its own that cannot; {_ROLES}",
        )
    return passed("no more than needed", f"{rights.user} cannot write LibreChat's messages")
