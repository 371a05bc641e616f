"""The watermark: what is stored never passes what is not done."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tailer.core.stream.watermark import Watermark


def test_the_position_before_an_open_entry_is_safe_and_the_entry_itself_is_not() -> None:
    """Resuming at a position reads what comes after it."""
    watermark = Watermark[str, int](10)
    watermark.open("a")
    watermark.advance(11)
    watermark.advance(12)

    assert (watermark.safe, watermark.read, watermark.open_count) == (10, 12, 1)
    watermark.close("a")
    assert (watermark.safe, watermark.read, watermark.open_count) == (12, 12, 0)


def test_an_entry_seen_again_needs_its_first_event_still() -> None:
    watermark = Watermark[str, int](10)
    watermark.open("a")
    watermark.advance(11)
    watermark.open("a")
    watermark.advance(12)

    assert watermark.safe == 10


def test_an_entry_that_comes_back_after_it_was_done_holds_only_its_new_event() -> None:
    watermark = Watermark[str, int](10)
    watermark.open("a")
    watermark.advance(11)
    watermark.close("a")
    watermark.open("a")
    watermark.advance(12)

    assert watermark.safe == 11


def test_closing_what_is_not_open_changes_nothing() -> None:
    watermark = Watermark[str, int](10)
    watermark.close("a")

    assert watermark.safe == 10


@given(st.lists(st.integers(0, 5), max_size=30), st.frozensets(st.integers(0, 6)))
def test_the_position_without_entries_is_the_one_after_they_are_closed(
    keys: list[int], done: frozenset[int]
) -> None:
    """And it changes nothing before they are."""
    watermark = Watermark[int, int](0)
    for position, key in enumerate(keys, start=1):
        watermark.open(key)
        watermark.advance(position)
    before = watermark.safe

    foreseen = watermark.safe_without(done)

    assert watermark.safe == before
    for key in done:
        watermark.close(key)
    assert watermark.safe == foreseen


@given(st.lists(st.integers(0, 5), max_size=30), st.randoms(use_true_random=False))
def test_in_whatever_order_entries_are_done_the_end_is_reached(keys: list[int], order: object) -> None:
    """And the safe position moves only forward on the way."""
    watermark = Watermark[int, int](0)
    for position, key in enumerate(keys, start=1):
        watermark.open(key)
        watermark.advance(position)
    first_seen = {key: keys.index(key) for key in keys}
    remaining = sorted(first_seen)
    order.shuffle(remaining)  # type: ignore[attr-defined]
    before = watermark.safe
    while remaining:
        watermark.close(remaining.pop())
        assert watermark.safe >= before
        before = watermark.safe
        assert watermark.safe == min((first_seen[key] for key in remaining), default=len(keys))
    assert watermark.safe == watermark.read == len(keys)


@dataclass
class Server:
    """A stream as the server keeps it: event n lies between position n and n + 1; each concerns a row or nothing."""

    events: list[int | None] = field(default_factory=list)


class CrashingReader(RuleBasedStateMachine):
    """A reader that reads, finishes rows in any order, stores its position, and loses everything else at any time.

    `version[row]` counts the events of a row, `done[row]` says up to which of them the row was sent (and acknowledged:
    that survives a crash, as it does in Langfuse and the export record).
    """

    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.stored = 0
        self.done: dict[int, int] = {}
        self.start()

    def start(self) -> None:
        self.watermark = Watermark[int, int](self.stored)
        self.seen: dict[int, int] = {}

    @rule(row=st.one_of(st.none(), st.integers(0, 3)))
    def something_happens(self, row: int | None) -> None:
        self.server.events.append(row)

    @precondition(lambda self: self.watermark.read < len(self.server.events))
    @rule()
    def read_one(self) -> None:
        position = self.watermark.read
        row = self.server.events[position]
        if row is not None:
            self.watermark.open(row)
            self.seen[row] = position
        self.watermark.advance(position + 1)

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def finish_one(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(sorted(self.seen)))
        self.done[row] = max(self.done.get(row, -1), self.seen.pop(row))
        self.watermark.close(row)

    @rule()
    def store(self) -> None:
        assert self.watermark.safe >= self.stored
        self.stored = self.watermark.safe

    @rule()
    def crash(self) -> None:
        self.start()

    @invariant()
    def nothing_before_the_stored_position_is_undone(self) -> None:
        for position in range(self.stored):
            row = self.server.events[position]
            assert row is None or self.done.get(row, -1) >= position

    @invariant()
    def the_safe_position_never_passes_an_open_entry(self) -> None:
        first_open = min(
            (
                position
                for position in range(self.stored, self.watermark.read)
                if (row := self.server.events[position]) is not None
                and row in self.seen
                and self.done.get(row, -1) < position
            ),
            default=self.watermark.read,
        )
        assert self.stored <= self.watermark.safe <= first_open

    def teardown(self) -> None:
        """After a last restart everything is read and finished: the end is stored and nothing is undone."""
        self.start()
        while self.watermark.read < len(self.server.events):
            self.read_one()
        for row in sorted(self.seen, reverse=True):
            self.done[row] = self.seen[row]
            self.watermark.close(row)
        self.stored = self.watermark.safe
        assert self.stored == len(self.server.events)
        self.nothing_before_the_stored_position_is_undone()


TestCrashingReader = CrashingReader.TestCase
TestCrashingReader.settings = settings(max_examples=120, stateful_step_count=40)
