"""Which entries a share that ends would close: exactly those that it then closes."""

from itertools import product

import pytest

from tailer.core.stream.entries import EntryKey
from tailer.core.stream.hints import Interest, Stream
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.core.turn.turns import Wait
from tailer.flow.records import StreamBatch
from tailer.flow.shares import Again, Done, Ending, Parked, Shares
from tests.unit.flow.scene import Scene, make_hint

SENT = Done(EntryOutcome.COMPLETE, was_sent=True)
RATED = Done(EntryOutcome.COMPLETE, was_sent=True, followed=frozenset({"feedback"}))
ENDINGS: tuple[Ending, ...] = (SENT, RATED, Done(EntryOutcome.DEAD_LETTER), Again(5), Parked(Wait.FINISH))


def open_rows(scene: Scene, *names: str) -> list[EntryKey]:
    """Entries of a turn and of its title, taken."""
    pieces = scene.open_turns(*names)
    return [piece.key for piece in pieces]


@pytest.mark.parametrize(("first", "last"), list(product(ENDINGS, (SENT, RATED))))
async def test_the_last_destination_closes_what_all_are_done_with(
    scene: Scene, first: Ending, last: Done
) -> None:
    """And nothing before: while another still has its share, a batch passes no position. A turn that waits is parked
    first, which no batch foresees."""
    (key,) = open_rows(scene, "m1")
    shares = Shares(scene.backlog, scene.parking, ["one", "two"], scene.events)
    scene.backlog.turns.release(key, 0)
    (entry,) = scene.backlog.turns.take_due(3600, limit=1)
    shares.begin(entry)

    assert shares.closed_by(key, "one", SENT) == ()
    shares.end(key, "one", first)
    foreseen = shares.closed_by(key, "two", last)
    assert scene.backlog.is_open(Interest.RESPONSE, key.document_key)
    shares.end(key, "two", last)

    closed = not scene.backlog.is_open(Interest.RESPONSE, key.document_key)
    assert bool(foreseen) == (closed and not isinstance(first, Parked))
    assert foreseen in ((), (key,))


@pytest.mark.parametrize("carrying", [0, 1, 2])
async def test_a_title_is_closed_with_its_turn_where_every_destination_got_both(
    scene: Scene, carrying: int
) -> None:
    """One that lacks it still has to get it."""
    turn, title = open_rows(scene, "m1", "title")
    shares = Shares(scene.backlog, scene.parking, ["one", "two"], scene.events)
    scene.backlog.turns.release(turn, 0)
    (entry,) = scene.backlog.turns.take_due(3600, limit=1)
    shares.begin(entry)
    endings = [
        Done(EntryOutcome.COMPLETE, was_sent=True, carried=(title,) if number < carrying else ())
        for number in range(2)
    ]
    shares.end(turn, "one", endings[0])

    foreseen = shares.closed_by(turn, "two", endings[1])

    assert foreseen == ((turn, title) if carrying == 2 else (turn,))
    shares.end(turn, "two", endings[1])
    assert scene.backlog.is_open(Interest.RESPONSE, title.document_key) == (carrying < 2)


async def test_an_entry_whose_row_changed_holds_its_position_although_its_share_ends(scene: Scene) -> None:
    """It stays open, and so does everything after it."""
    first, second = open_rows(scene, "m1", "m2")
    position = scene.backlog.read_position(Stream.MESSAGES)
    hint = make_hint("m1", first.document_key, 9)
    scene.backlog.take_hints(Stream.MESSAGES, StreamBatch([(hint, position)], position, 9))

    def seconds(*keys: EntryKey) -> int:
        return scene.backlog.checkpoints_without(keys)[Stream.MESSAGES].position.cluster_seconds

    before = scene.backlog.checkpoint(Stream.MESSAGES).position.cluster_seconds
    assert seconds(first, second) == seconds(first) == seconds(second) == seconds() == before
