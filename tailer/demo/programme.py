"""One round of the demo: the recordings on one time line from now on, with new ids, and the traces that must follow.

Owns the order in which conversations begin and the list of expected traces. Refuses to play and to wait.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from tailer.core.identity import TraceId, title_trace_id, turn_trace_id
from tailer.core.turn.usage import TITLE_CONTEXT
from tailer.demo.stage.recording import Document, Recording

BEGIN_EVERY: Final = timedelta(seconds=4)
"""How long after one recording the next one begins. With ten recordings there is always something to see, and the
longest comes first and runs beside the others."""


@dataclass(frozen=True, slots=True)
class Programme:
    """Recordings as they will be played. `turns` and `titles` are the expected traces; `names` has the users' names by
    id."""

    recordings: tuple[Recording, ...]
    turns: frozenset[TraceId]
    titles: frozenset[TraceId]
    names: Mapping[str, str]

    @property
    def begins_at(self) -> datetime:
        """The time of the first event."""
        return min(recording.started_at for recording in self.recordings)

    @property
    def ends_at(self) -> datetime:
        """The time of the last event."""
        return max(recording.started_at + recording.duration for recording in self.recordings)


def make_programme(recordings: Sequence[Recording], *, at: datetime, salt: str) -> Programme:
    """The recordings from `at` (aware) on, the longest first; another salt gives other ids."""
    longest_first = sorted(recordings, key=lambda recording: recording.duration, reverse=True)
    played = tuple(
        recording.rename(salt).shift(at + number * BEGIN_EVERY)
        for number, recording in enumerate(longest_first)
    )
    # Nothing in the recordings is temporary, copied or traced by LibreChat itself: every answer gives a trace.
    return Programme(
        recordings=played,
        turns=frozenset(
            turn_trace_id(answer["messageId"])
            for answer in _documents(played, "messages")
            if not answer["isCreatedByUser"]
        ),
        titles=frozenset(
            title_trace_id(entry["messageId"])
            for entry in _documents(played, "transactions")
            if entry["context"] == TITLE_CONTEXT
        ),
        names={str(user["_id"]): user["name"] for user in _documents(played, "users")},
    )


def _documents(recordings: Sequence[Recording], collection: str) -> Iterator[Document]:
    for recording in recordings:
        for event in recording.events:
            if event.collection == collection and event.full_document is not None:
                yield event.full_document
