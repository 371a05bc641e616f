"""Ids of traces and observations, derived from stored facts only, so that a replay gives the same ids; and the keys of
documents."""

from hashlib import sha256
from typing import NewType

TraceId = NewType("TraceId", str)
"""32 lowercase hex digits."""
ObservationId = NewType("ObservationId", str)
"""16 lowercase hex digits."""
DocumentKey = NewType("DocumentKey", str)
"""A document's `_id` as text: the 24 hex digits of an ObjectId, or a reversible encoding of anything else."""

LAST_SECOND = 2**32 - 1
"""The last second that an ObjectId can hold: on 7 February 2106."""

NO_PARENT = "00000000-0000-0000-0000-000000000000"
"""`parentMessageId` of the first message of a conversation (LibreChat's `Constants.NO_PARENT`)."""

_API_RESPONSE = "resp_"
_TIME_DIGITS = 8
"""LibreChat's milliseconds in base 36 have as many digits until the year 2059."""


def _digest(seed: str) -> str:
    # A lone surrogate is legal in a stored string and must not stop the turn.
    return sha256(seed.encode("utf-8", "surrogatepass")).hexdigest()


def turn_trace_id(response_message_id: str) -> TraceId:
    """The trace of a turn; equal to LibreChat's own (0.8.7 and later) and to `Langfuse.create_trace_id(seed=…)`."""
    return TraceId(_digest(response_message_id)[:32])


def native_copy_trace_id(response_message_id: str) -> TraceId:
    """The trace of a turn that LibreChat traced itself under the plain id."""
    return TraceId(_digest(f"librechat-tailer:{response_message_id}")[:32])


def title_trace_id(response_message_id: str) -> TraceId:
    """The trace of the title generation that belongs to a conversation's first turn."""
    return TraceId(_digest(f"title-{response_message_id}")[:32])


def title_trace_id_beside(turn_trace: TraceId, response_message_id: str) -> TraceId:
    """The trace of the title beside a turn's trace. If the turn has a second trace, LibreChat's own title has the plain
    id."""
    if turn_trace == native_copy_trace_id(response_message_id):
        return native_copy_trace_id(f"title-{response_message_id}")
    return title_trace_id(response_message_id)


def unanswered_trace_id(question_message_id: str) -> TraceId:
    """The trace of a question that never received a response row."""
    return TraceId(_digest(f"unanswered-{question_message_id}")[:32])


def spending_trace_id(reference: str) -> TraceId:
    """The trace of spending that belongs to no message."""
    return TraceId(_digest(f"usage-{reference}")[:32])


def observation_id(message_id: str, role: str, index: int | None = None) -> ObservationId:
    """The id of one observation of a turn, from its role in the trace, and its place if a role repeats."""
    seed = f"{message_id}:{role}" if index is None else f"{message_id}:{role}:{index}"
    return ObservationId(_digest(seed)[:16])


def is_api_response(message_id: str, parent_message_id: str | None) -> bool:
    """Whether a response was stored by the agents API (`/responses` with `store`, 0.8.3): none of its rows has a
    parent."""
    return parent_message_id is None and message_id.startswith(_API_RESPONSE)


def api_call_milliseconds(message_id: str) -> int | None:
    """When a call of the agents API began, from the id of its response: the time in base 36 and six random digits."""
    try:
        return int(message_id.removeprefix(_API_RESPONSE)[:_TIME_DIGITS], 36)
    except ValueError:
        return None


def inserted_seconds(key: DocumentKey) -> int | None:
    """The second in which an ObjectId was made: the true time of insertion, also for imports and forks."""
    try:
        return int(key[:8], 16) if len(key) == 24 else None  # noqa: PLR2004 - an ObjectId has 24 hex digits
    except ValueError:
        return None
