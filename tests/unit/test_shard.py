"""Conversations are divided among shards: each is exactly one shard's, whatever its id."""

import re
from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.stream.shard import MOST_SHARDS, WHOLE, Shard

_IDS = st.one_of(st.text(), st.uuids(version=4).map(str), st.uuids().map(str), st.none())


@given(conversation_id=_IDS, total=st.integers(1, MOST_SHARDS))
def test_every_conversation_is_exactly_one_shards(conversation_id: str | None, total: int) -> None:
    """Whatever a client made of the id."""
    owners = [shard for shard in Shard(0, total).all() if shard.owns(conversation_id)]

    assert len(owners) == 1


@given(conversation_id=_IDS, total=st.integers(2, MOST_SHARDS), index=st.integers(0, MOST_SHARDS - 1))
def test_the_server_never_leaves_out_what_a_shard_owns(
    conversation_id: str | None, total: int, index: int
) -> None:
    """The expression for the server and the decision in the process agree."""
    shard = Shard(index % total, total)

    # Python has another name for the end of a text than PCRE.
    is_foreign = re.search(shard.foreign_ids().replace(r"\z", r"\Z"), conversation_id or "")

    assert not (is_foreign and shard.owns(conversation_id))


@given(conversation_id=st.uuids(version=4).map(str), total=st.integers(2, MOST_SHARDS))
def test_the_server_leaves_out_every_random_id_of_other_shards(conversation_id: str, total: int) -> None:
    """LibreChat's own ids cost other shards nothing."""
    for shard in Shard(0, total).all():
        is_foreign = re.search(shard.foreign_ids().replace(r"\z", r"\Z"), conversation_id)
        assert bool(is_foreign) != shard.owns(conversation_id)


@pytest.mark.parametrize("total", [2, 3, 4, 7, 16, 64])
def test_shards_have_even_shares(total: int) -> None:
    """Of ids that LibreChat makes, and of others."""
    numbers = range(256 * 40)
    random_ids = [str(UUID(int=number, version=4)) for number in numbers]
    for ids in (random_ids, [f"thread_{number}" for number in numbers]):
        counts = Counter(
            next(shard.index for shard in Shard(0, total).all() if shard.owns(each)) for each in ids
        )
        assert len(counts) == total
        assert max(counts.values()) <= 1.6 * min(counts.values())


def test_the_division_is_the_same_in_every_release() -> None:
    """Positions of one release are continued by the next: a conversation must not change its shard in between."""
    fixed = {"5f8b9a60-0000-4000-8000-0000000000ff": 3, "thread_abc": 0, "": 0, "ünïcode": 2}

    assert {
        conversation_id: next(shard.index for shard in Shard(0, 4).all() if shard.owns(conversation_id))
        for conversation_id in fixed
    } == fixed
    assert Shard(0, 4).owns(None)


def test_a_whole_owns_everything_and_has_a_name_like_any_other() -> None:
    """The default: no other instance has a share."""
    assert WHOLE.is_whole
    assert WHOLE.owns("anything")
    assert [str(shard) for shard in Shard(0, 2).all()] == ["0of2", "1of2"]
