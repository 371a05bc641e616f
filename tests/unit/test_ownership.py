"""Whether a state belongs to a LibreChat: hosts may be renamed and replaced, another database is another LibreChat."""

import pytest

from tailer.core.ownership import Ownership, SourceIdentity, compare_sources, update_owner


def source(*hosts: str, database: str = "LibreChat", set_id: str | None = None) -> SourceIdentity:
    return SourceIdentity(database, set_id, frozenset(hosts))


@pytest.mark.parametrize(
    ("owner", "found", "verdict"),
    [
        (source("a"), source("a"), Ownership.SAME),
        (source("a"), source("a", database="Staging"), Ownership.OTHER),
        (source("a", set_id="1"), source("b", set_id="1"), Ownership.SAME),
        (source("a", set_id="1"), source("a", set_id="2"), Ownership.UNSURE),
        (source("a", set_id="1"), source("a", set_id="1", database="Staging"), Ownership.OTHER),
        (source("a", "b"), source("b", "c"), Ownership.SAME),
        (source("a", set_id="1"), source("a"), Ownership.SAME),
        (source("a"), source("b"), Ownership.UNSURE),
        (source("a", set_id="1"), source("b"), Ownership.UNSURE),
    ],
)
def test_a_source_is_the_owner_by_database_set_and_hosts(
    owner: SourceIdentity, found: SourceIdentity, verdict: Ownership
) -> None:
    assert compare_sources(owner, found) is verdict


def test_hosts_that_are_replaced_one_by_one_are_followed() -> None:
    """Each start keeps the hosts of its own day; an id that was known once is not forgotten."""
    owner = source("a", "b", "c", set_id="1")
    for hosts in (("b", "c", "d"), ("c", "d", "e"), ("d", "e", "f")):
        found = source(*hosts)
        assert compare_sources(owner, found) is Ownership.SAME
        owner = update_owner(owner, found)

    assert owner == source("d", "e", "f", set_id="1")
