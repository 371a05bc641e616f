"""Which traces are being worked on, so that no two tasks send, amend or delete the same one at once.

The rule that makes it safe: claim a trace first, then read its record and its row, and release it only after its record
is written. The next task that claims it sees that record.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeVar

from tailer.core.identity import DocumentKey

Record = TypeVar("Record", bound=str)


class InFlight:
    """The claimed traces. A later piece of a trace (`<trace id>:<piece>`) is a claim on the whole of it."""

    def __init__(self) -> None:
        self._claims: Counter[str] = Counter()
        self._row_of: dict[str, DocumentKey] = {}
        self._rows: Counter[DocumentKey] = Counter()
        self._closed_rows: set[DocumentKey] = set()
        self._conversations: dict[DocumentKey, str] = {}

    @property
    def claimed(self) -> frozenset[str]:
        """The claimed traces, for reading."""
        return frozenset(self._claims)

    def claim(self, rows: Mapping[Record, DocumentKey]) -> frozenset[Record]:
        """Claim the traces of records, each for work on a row. Returns those that were free, in one step."""
        free = frozenset(
            record_id
            for record_id, row in rows.items()
            if _trace_of(record_id) not in self._claims and row not in self._closed_rows
        )
        for record_id in free:
            self.hold(record_id, rows[record_id])
        return free

    def note_conversation(self, row: DocumentKey, conversation_id: str) -> None:
        """Note whose a row is of which something is on its way; the row itself may be gone before it has arrived."""
        if row in self._rows:
            self._conversations[row] = conversation_id

    def conversation_of(self, row: DocumentKey) -> str | None:
        """Whose a row is of which something is on its way, where that was noted."""
        return self._conversations.get(row)

    def claim_row(self, row: DocumentKey) -> bool:
        """Claim everything that a row has, or will have, if none of it is claimed."""
        if row in self._rows or row in self._closed_rows:
            return False
        self._closed_rows.add(row)
        return True

    def release_row(self, row: DocumentKey) -> None:
        """Release everything that a row has."""
        self._closed_rows.discard(row)

    def hold(self, record_id: str, row: DocumentKey) -> None:
        """Claim the trace of a record that an earlier run began to send, whatever other claims exist."""
        trace_id = _trace_of(record_id)
        self._claims[trace_id] += 1
        if trace_id not in self._row_of:
            self._row_of[trace_id] = row
            self._rows[row] += 1

    def release(self, record_ids: Iterable[str]) -> None:
        """Release claims, each as often as it was made."""
        for trace_id in map(_trace_of, record_ids):
            self._claims[trace_id] -= 1
            if self._claims[trace_id] <= 0:
                del self._claims[trace_id]
                self._forget_row(trace_id)

    def _forget_row(self, trace_id: str) -> None:
        row = self._row_of.pop(trace_id, None)
        if row is not None:
            self._rows[row] -= 1
            if not self._rows[row]:
                del self._rows[row]
                self._conversations.pop(row, None)


def _trace_of(record_id: str) -> str:
    return record_id.partition(":")[0]
