"""Claims on traces: one holder at a time, whoever asks for whatever piece of them, in any order."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tailer.core.identity import DocumentKey
from tailer.flow.in_flight import InFlight

ROWS = [DocumentKey(f"row-{number}") for number in range(3)]
TRACES = {f"trace-{number}": ROWS[number % 3] for number in range(6)}
"""Two traces of each row."""


def test_a_trace_has_one_holder_and_its_pieces_are_a_part_of_it() -> None:
    """Whoever edits it waits for whoever sends it."""
    in_flight = InFlight()

    assert in_flight.claim({"trace-0": ROWS[0]}) == {"trace-0"}
    assert in_flight.claim({"trace-0": ROWS[0], "trace-0:edit:0": ROWS[0], "trace-1": ROWS[1]}) == {"trace-1"}
    in_flight.release(["trace-0"])
    assert in_flight.claim({"trace-0:edit:0": ROWS[0]}) == {"trace-0:edit:0"}
    assert in_flight.claimed == {"trace-0", "trace-1"}


def test_what_an_earlier_run_began_to_send_is_held_whoever_else_holds_it() -> None:
    """Two batches of it may hold the same trace: it is free when both are settled."""
    in_flight = InFlight()
    for _ in range(2):
        in_flight.hold("trace-0", ROWS[0])
    in_flight.release(["trace-0"])

    assert in_flight.claim({"trace-0": ROWS[0]}) == frozenset()
    in_flight.release(["trace-0"])
    assert in_flight.claim({"trace-0": ROWS[0]}) == {"trace-0"}


class AnyOrder(RuleBasedStateMachine):
    """Tasks that claim and let go as they like, against the plain rule of who may have what."""

    def __init__(self) -> None:
        super().__init__()
        self.in_flight = InFlight()
        self.held: list[str] = []
        self.closed: set[DocumentKey] = set()

    @rule(traces=st.sets(st.sampled_from(sorted(TRACES)), min_size=1))
    def claim(self, traces: set[str]) -> None:
        free = self.in_flight.claim({trace: TRACES[trace] for trace in traces})

        assert free == {
            trace for trace in traces if trace not in self.held and TRACES[trace] not in self.closed
        }
        self.held.extend(free)

    @rule(trace=st.sampled_from(sorted(TRACES)))
    def hold(self, trace: str) -> None:
        self.in_flight.hold(trace, TRACES[trace])
        self.held.append(trace)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.held:
            trace = data.draw(st.sampled_from(self.held))
            self.in_flight.release([f"{trace}:edit:3"])
            self.held.remove(trace)

    @rule(row=st.sampled_from(ROWS))
    def claim_row(self, row: DocumentKey) -> None:
        is_free = row not in self.closed and all(TRACES[trace] != row for trace in self.held)

        assert self.in_flight.claim_row(row) == is_free
        if is_free:
            self.closed.add(row)

    @rule(row=st.sampled_from(ROWS))
    def release_row(self, row: DocumentKey) -> None:
        self.in_flight.release_row(row)
        self.closed.discard(row)

    @invariant()
    def what_is_claimed_is_what_is_held(self) -> None:
        assert self.in_flight.claimed == set(self.held)


TestAnyOrder = AnyOrder.TestCase
