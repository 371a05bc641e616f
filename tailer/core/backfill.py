"""What a backfill is: which rows a job walks, which of them it opens as work, and its progress.

A job is a stretch of the collection `messages`, by `_id`, or one conversation. What it opens takes the same path as
what the streams report, so a turn that several of them saw is sent once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tailer.core.identity import DocumentKey, TraceId, inserted_seconds
from tailer.core.stream.entries import EntryKey
from tailer.core.stream.hints import Interest, Stream
from tailer.core.trace.export import trace_id_of
from tailer.core.turn.readback import Row

CLOCK_MARGIN_SECONDS = 600
"""A gap is measured by cluster time. The `_id` of a message is made by the clock of the primary of that moment, that of
a transaction by LibreChat's, so the walk is this much wider on both sides."""


START_JOB = "start"
"""The id of a first start's backfill. It is the same after a crash, so the backfill is planned once."""


class StartMode(StrEnum):
    """Where a first start begins."""

    NOW = "now"
    ALL = "all"
    SINCE = "since"


@dataclass(frozen=True, slots=True)
class Start:
    """`since` is the time of the mode SINCE, else None."""

    mode: StartMode
    since: datetime | None = None

    def __str__(self) -> str:
        return self.mode.value if self.since is None else self.since.isoformat()


class JobReason(StrEnum):
    """The reason for a backfill."""

    ASKED = "asked"
    GAP = "gap"
    START = "start"


@dataclass(frozen=True, slots=True)
class Counts:
    """What happened to rows: walked, sent before, sent now, and without a trace (so far)."""

    rows: int = 0
    known: int = 0
    sent: int = 0
    left_out: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.rows + other.rows,
            self.known + other.known,
            self.sent + other.sent,
            self.left_out + other.left_out,
        )


@dataclass(frozen=True, slots=True)
class Job:
    """One backfill. Times are seconds since 1970, inclusive, and None without a limit. `position` is the `_id` up to
    which everything is done. `total_rows` is None if the rows have not been, or cannot be, counted. `gap_id` names the
    gap that the job fills."""

    job_id: str
    reason: JobReason
    since_seconds: int | None = None
    until_seconds: int | None = None
    conversation_id: str | None = None
    gap_id: str | None = None
    position: DocumentKey | None = None
    counts: Counts = Counts()
    total_rows: int | None = None
    is_done: bool = False
    stream: Stream = Stream.MESSAGES
    destination: str | None = None
    """The only destination that is filled, None for all of them."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A row to be opened as work. If its deadline has passed, the tailer waits for nothing more."""

    row: Row
    interest: Interest
    deadline_passed: bool

    @property
    def key(self) -> EntryKey:
        """The entry that the row becomes."""
        return EntryKey(self.interest, self.row.key)


INTEREST_OF_WALK = {Stream.CONVERSATIONS: Interest.TITLE, Stream.TRANSACTIONS: Interest.SPENDING}
"""What the documents of a walk ask for, but for `messages`, where each row tells."""
_TITLE_MARGIN_SECONDS = 3600
"""A title is stored at the end of a first answer, and its conversation has the `_id` of the answer's beginning."""


def plan_gap(gap_id: str, stream: Stream, *, from_seconds: int, to_seconds: int) -> Job:
    """The walk that fills a gap: of the same collection, begun and ended wider than the gap."""
    earlier = _TITLE_MARGIN_SECONDS if stream is Stream.CONVERSATIONS else 0
    return Job(
        job_id=f"gap-{gap_id}",
        reason=JobReason.GAP,
        since_seconds=from_seconds - CLOCK_MARGIN_SECONDS - earlier,
        until_seconds=to_seconds + CLOCK_MARGIN_SECONDS,
        gap_id=gap_id,
        stream=stream,
    )


def choose_admissions(
    rows: Sequence[Row], *, known: frozenset[TraceId], now_seconds: int, unanswered_seconds: int
) -> Iterator[Admission]:
    """The rows of a chunk that are work: responses that were not sent, and questions that nothing in the chunk answers.

    A question is read again before it counts as unanswered; an old one is not waited for.
    """
    answered = {(row.conversation_id, row.parent_message_id) for row in rows if not row.created_by_user}
    for row in rows:
        if trace_id_of(row) in known:
            continue
        if not row.created_by_user:
            yield Admission(row, Interest.RESPONSE, deadline_passed=False)
        elif (row.conversation_id, row.message_id) not in answered:
            age = now_seconds - (inserted_seconds(row.key) or 0)
            yield Admission(row, Interest.QUESTION, deadline_passed=age >= unanswered_seconds)
