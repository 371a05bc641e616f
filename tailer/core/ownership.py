"""Which LibreChat a state database belongs to, and whether a source is that LibreChat."""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class SourceIdentity:
    """A LibreChat's database as MongoDB describes it.

    `set_id` is the id that a replica set gets once, or the id of a sharded cluster, None if the user may not read it.
    `hosts` are the addresses of the members, or of the URI for a sharded cluster.
    """

    database: str
    set_id: str | None
    hosts: frozenset[str]

    def __str__(self) -> str:
        return f"database {self.database} on {', '.join(sorted(self.hosts)) or 'hosts without names'}"


class Ownership(StrEnum):
    """Whether a state belongs to a source."""

    SAME = "same"
    OTHER = "other"
    UNSURE = "unsure"
    """Another set, or hosts with other names. Rows that were sent before decide whether it only moved."""


def compare_sources(owner: SourceIdentity, found: SourceIdentity) -> Ownership:
    """Whether a source is the owner: by the database, then by the set's id, and without an id by any common host.

    Hosts may be renamed and replaced one by one. The id of a set survives both, but not dump and restore.
    """
    if owner.database != found.database:
        return Ownership.OTHER
    if owner.set_id is not None and found.set_id is not None:
        return Ownership.SAME if owner.set_id == found.set_id else Ownership.UNSURE
    return Ownership.UNSURE if owner.hosts.isdisjoint(found.hosts) else Ownership.SAME


def update_owner(owner: SourceIdentity, found: SourceIdentity) -> SourceIdentity:
    """The stored owner after it was seen again: its present hosts, and its id if that is known."""
    return SourceIdentity(found.database, found.set_id or owner.set_id, found.hosts or owner.hosts)
