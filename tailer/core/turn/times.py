"""When a turn began and ended, by LibreChat's own clock, and whether the beginning is known at all.

LibreChat stores the time of the question and of the answer. A regenerated answer leaves one trace of its beginning: the
question is saved again. Only the change stream reports that.
"""

from collections.abc import Sequence
from enum import StrEnum

from tailer.core.identity import api_call_milliseconds
from tailer.core.librechat.content import ToolCall
from tailer.core.librechat.messages import Message
from tailer.core.light_dataclass import light_dataclass
from tailer.core.turn.record import TurnRecord

_OWN_SAVES_MILLISECONDS = 500
"""How long after an answer LibreChat may still save its question; only a script asks again sooner."""
_QUICK_OWN_SAVE_MILLISECONDS = 60
"""The longest delay of such a save that was seen."""
_SAVE_BEFORE_ANSWER_MILLISECONDS = 50
"""LibreChat saves the question also right before it stores an answer that was stopped or counted anew."""
_LEAST_MILLISECONDS = 5
"""No answer is this quick: then both times belong to the same save."""
_LONGEST_CALL_MILLISECONDS = 86_400_000
"""No call of the agents API lasts longer; an id that tells so is no time."""
_FIRST_SAVES_MILLISECONDS = 5_000
"""A conversation is created this soon after its first question; an older question was copied into it."""


class Start(StrEnum):
    """How the beginning of a turn is known."""

    STORED = "stored"
    ESTIMATED = "estimated"
    UNKNOWN = "unknown"


@light_dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds since 1970. An unknown start is the end."""

    start_milliseconds: int
    end_milliseconds: int
    start: Start


def resolve_times(record: TurnRecord, anchor: Message) -> Times:
    """Start: the question was stored, or saved again for a regenerated answer, or the agents API was called. End: the
    response was stored, or a later event finished it."""
    stored = anchor.created_milliseconds or (anchor.inserted_seconds or 0) * 1000
    end = max(stored, record.finished_milliseconds or 0)
    if record.response is None:
        return Times(end, end, Start.STORED)
    start, source = _find_start(record, stored)
    if start is not None and end - start >= _LEAST_MILLISECONDS:
        return Times(start, end, source)
    lasted = _longest_tool(record.response)
    if lasted:
        return Times(end - lasted, end, Start.ESTIMATED)
    return Times(end, end, Start.UNKNOWN)


def _find_start(record: TurnRecord, stored: int) -> tuple[int | None, Start]:
    if record.response is not None and record.response.is_of_api:
        # Its question was stored together with it, when it was complete.
        called = api_call_milliseconds(record.response.message_id)
        is_time = called is not None and 0 <= stored - called <= _LONGEST_CALL_MILLISECONDS
        return called if is_time else None, Start.STORED
    earlier = _last_moment_before(record)
    if earlier is not None:
        return _restart(record.question_touches, after=earlier, before=stored)
    return record.question.created_milliseconds if record.question is not None else None, Start.STORED


def _last_moment_before(record: TurnRecord) -> int | None:
    """When what was there before this answer was done: the latest earlier response to the question, or the conversation
    that the question was copied into. None where the question's own time is the start."""
    response, question, conversation = record.response, record.question, record.conversation
    if response is None or response.created_milliseconds is None:
        return None
    created = response.created_milliseconds
    earlier = [
        sibling.created_milliseconds
        for sibling in record.siblings
        if sibling.message_id != response.message_id
        and sibling.created_milliseconds is not None
        and sibling.created_milliseconds < created
    ]
    asked = question.created_milliseconds if question is not None else None
    made = conversation.created_milliseconds if conversation is not None else None
    if asked is not None and made is not None and asked < made - _FIRST_SAVES_MILLISECONDS:
        earlier.append(made)
    return max(earlier, default=None)


def _restart(touches: Sequence[int], *, after: int, before: int) -> tuple[int | None, Start]:
    """The save of the question with which an answer began anew: the first after the previous answer's own saves.

    If that is the save right before the answer, the question was asked again while the previous answer's own saves were
    still possible. An answer that was edited and sent on leaves no save at its start.
    """
    own_saves_end = after + _OWN_SAVES_MILLISECONDS
    first = next((at for at in touches if own_saves_end < at <= before), None)
    if first is None:
        return None, Start.UNKNOWN
    if first < before - _SAVE_BEFORE_ANSWER_MILLISECONDS:
        return first, Start.STORED
    quick = [at for at in touches if after + _QUICK_OWN_SAVE_MILLISECONDS < at <= min(own_saves_end, before)]
    return (max(quick), Start.ESTIMATED) if quick else (None, Start.UNKNOWN)


def _longest_tool(response: Message) -> int:
    """The shortest possible duration of an answer: its longest tool call, in milliseconds."""
    durations = [part.duration_milliseconds or 0 for part in response.parts if isinstance(part, ToolCall)]
    return max(durations, default=0)
