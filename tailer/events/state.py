"""What happens to the tailer's own database."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final

from tailer.core.stream.hints import Stream
from tailer.events.base import Event


class StateOperation(StrEnum):
    """What is done on the state database. `OF_COMMANDS` are those that no daemon does."""

    ADD_DEAD_LETTERS = "add_dead_letters"
    ADD_GAP = "add_gap"
    ADD_JOB = "add_job"
    ADVANCE_JOB = "advance_job"
    BEGIN_BATCH = "begin_batch"
    CHANGE_LAYOUT = "change_layout"
    CLAIM_STATE = "claim_state"
    COUNT_DEAD_LETTERS = "count_dead_letters"
    COUNT_OWED = "count_owed"
    DROP_DEAD_LETTERS = "drop_dead_letters"
    END_REPLAY = "end_replay"
    FIND_EXPORTED = "find_exported"
    FIND_REFUSED = "find_refused"
    FIND_TRACES = "find_traces"
    FINISH_BATCH = "finish_batch"
    FINISH_JOB = "finish_job"
    LOAD_CHECKPOINT = "load_checkpoint"
    LET_GO = "let_go"
    LOAD_OWED = "load_owed"
    LOAD_PARKED = "load_parked"
    LOAD_REPLAYS = "load_replays"
    LOAD_SENT = "load_sent"
    MASK_KEY = "mask_key"
    NEXT_JOB = "next_job"
    OWE = "owe"
    PARK = "park"
    PENDING_BATCHES = "pending_batches"
    PREPARE = "prepare"
    OPEN_SLOTS = "open_slots"
    RAISE_FENCE = "raise_fence"
    RAISE_SLOTS = "raise_slots"
    READ_LAYOUT = "read_layout"
    READ_LEASE = "read_lease"
    READ_OWNER = "read_owner"
    RECORD_DELETED = "record_deleted"
    RECORD_FEEDBACK = "record_feedback"
    RELEASE_LEASE = "release_lease"
    RENEW_LEASE = "renew_lease"
    SAVE_CHECKPOINT = "save_checkpoint"
    SETTLE_OWED = "settle_owed"
    SIZE_JOB = "size_job"
    TAKE_LEASE = "take_lease"
    UNFILLED_GAPS = "unfilled_gaps"
    UNPARK = "unpark"
    ASK_FOR_BACKFILL = "ask_for_backfill"
    ASK_FOR_REPLAY = "ask_for_replay"
    COUNT_EXPORTS = "count_exports"
    COUNT_PENDING = "count_pending"
    FIND_JOB = "find_job"
    FIND_SENT = "find_sent"
    FORGET_CHECKPOINTS = "forget_checkpoints"
    FORGET_EXPORTS = "forget_exports"
    LIST_CHECKPOINTS = "list_checkpoints"
    LIST_DEAD_LETTERS = "list_dead_letters"
    LOOK_AT_JOB = "look_at_job"


OF_COMMANDS: Final = frozenset(
    {
        StateOperation.ASK_FOR_BACKFILL,
        StateOperation.ASK_FOR_REPLAY,
        StateOperation.COUNT_EXPORTS,
        StateOperation.COUNT_PENDING,
        StateOperation.FIND_JOB,
        StateOperation.FIND_SENT,
        StateOperation.FORGET_CHECKPOINTS,
        StateOperation.FORGET_EXPORTS,
        StateOperation.LIST_CHECKPOINTS,
        StateOperation.LIST_DEAD_LETTERS,
        StateOperation.LOOK_AT_JOB,
    }
)
"""Commands have no metrics."""


@dataclass(frozen=True, slots=True)
class StateFailed(Event):
    """A write of the tailer's own state failed and is tried again."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "state_failed"
    operation: StateOperation
    failure: str


@dataclass(frozen=True, slots=True)
class CheckpointSaved(Event):
    """The position of a stream was stored."""

    level: ClassVar[str | None] = None
    stream: Stream
    cluster_seconds: int
    write_seconds: float


@dataclass(frozen=True, slots=True)
class LettersCounted(Event):
    """How many dead letters are kept."""

    level: ClassVar[str | None] = None
    kept: int
