"""Positions as they are stored: touches in twenty bytes each, and what earlier releases stored."""

from hypothesis import given
from hypothesis import strategies as st

from tailer.core.identity import DocumentKey
from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import StreamPosition
from tailer.flow.records import Checkpoint
from tailer.mongo.document_keys import to_key
from tailer.mongo.state.positions import read_position, write_position

POSITION = StreamPosition("8200000007", 7)
OBJECT_IDS = st.binary(min_size=12, max_size=12).map(lambda raw: DocumentKey(raw.hex()))
OTHERS = st.one_of(st.text(), st.integers(-(2**31), 2**31)).map(to_key)
TIMES = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4).map(tuple)


@given(st.dictionaries(st.one_of(OBJECT_IDS, OTHERS), TIMES, max_size=20))
def test_whatever_rows_were_touched_is_read_back(touches: dict[DocumentKey, tuple[int, ...]]) -> None:
    """Also rows whose `_id` is no ObjectId."""
    checkpoint = Checkpoint(POSITION, tuple(touches.items()))
    stored = write_position(Stream.MESSAGES, checkpoint, destination="here", epoch=3, number=5)

    found = read_position(Stream.MESSAGES, stored)

    assert (found.position, dict(found.checkpoint.touches)) == (POSITION, touches)
    assert (found.epoch, found.number, found.destination) == (3, 5, "here")


def test_a_touch_takes_twenty_bytes() -> None:
    """Five hundred rows are ten kilobytes, in the order in which they were touched."""
    touches = tuple((DocumentKey(f"{number:024x}"), (number,)) for number in range(500, 0, -1))
    stored = write_position(
        Stream.MESSAGES, Checkpoint(POSITION, touches), destination="here", epoch=1, number=1
    )

    assert len(stored["packed_touches"]) == 10_000
    assert "touches" not in stored
    assert read_position(Stream.MESSAGES, stored).checkpoint.touches == touches


def test_a_checkpoint_of_an_earlier_release_is_read() -> None:
    """It has its touches in a list, and no number."""
    stored = {
        "_id": "messages", "token": "8200000007", "cluster_seconds": 7, "epoch": 4,
        "touches": [["0" * 24, [1, 2]]], "pipeline": "x", "destination": "here",
    }  # fmt: skip
    found = read_position(Stream.MESSAGES, stored)

    assert found.checkpoint == Checkpoint(POSITION, ((DocumentKey("0" * 24), (1, 2)),))
    assert (found.epoch, found.number) == (4, 0)
