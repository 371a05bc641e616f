"""What happened to a turn after its trace was sent: feedback, edits in place, deletion.

A sent trace stays as it is. An edit becomes one more event in it; the correction of an answer also becomes a score.
Feedback is a score that comes, changes and goes. Digests tell what was sent last, so a repeated or late change event
finds nothing to do.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256

from tailer.core.identity import DocumentKey, TraceId, observation_id
from tailer.core.librechat.messages import FEEDBACK_TAGS, Feedback, Message
from tailer.core.light_dataclass import light_dataclass
from tailer.core.policy.policies import ContentChoice
from tailer.core.trace.bounds import Allowance, Bounds
from tailer.core.trace.build import TURN_TRACE_NAME
from tailer.core.trace.content_policy import MakeMasker
from tailer.core.trace.observations import Observation, ObservationType, Trace

FEEDBACK_NAME = "user-feedback"
"""The name of the feedback in LibreChat's own tracing."""
CORRECTION_NAME = "output"
"""Langfuse's name for every correction."""


class EditedText(StrEnum):
    """Which text of a turn was edited."""

    ANSWER = "answer"
    QUESTION = "question"


class FollowupOperation(StrEnum):
    """What is asked of the destination after a trace was sent."""

    PUT_SCORE = "put_score"
    DELETE_SCORE = "delete_score"
    PUT_CORRECTION = "put_correction"
    DELETE_TRACES = "delete_traces"


class ScoreType(StrEnum):
    """The score types in use (`dataType`)."""

    BOOLEAN = "BOOLEAN"
    CORRECTION = "CORRECTION"


@light_dataclass(frozen=True, slots=True)
class TextMark:
    """What is remembered of a sent text: its length and a digest, never the text."""

    characters: int
    digest: str


@light_dataclass(frozen=True, slots=True)
class SentTurn:
    """The record of a sent turn, as far as later changes need it.

    `parts` marks what was shown besides the answer, `transactions` names the ledger rows that were counted,
    `usage_source` is the source of the numbers, `content_digest` that of the policies that chose `content`. All are
    None in a record of a release that did not store them.
    """

    trace_id: TraceId
    message_id: str
    document_key: DocumentKey
    user_id: str | None
    session_id: str
    tags: tuple[str, ...]
    content: ContentChoice
    answer: TextMark
    question: TextMark | None
    edits: int
    feedback: str | None
    start_milliseconds: int
    end_milliseconds: int
    expires_milliseconds: int | None
    parts: tuple[tuple[str, TextMark], ...] | None = None
    transactions: tuple[str, ...] | None = None
    usage_source: str | None = None
    content_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """A score to be created or overwritten; `timestamp_milliseconds` is part of its identity in Langfuse."""

    id: str
    trace_id: TraceId
    name: str
    type: ScoreType
    value: float | str
    comment: str | None
    metadata: dict[str, str]
    timestamp_milliseconds: int


@dataclass(frozen=True, slots=True)
class Edit:
    """A text that was edited in place: the old and the new text, when LibreChat wrote it, and the edit's number in the
    turn."""

    which: EditedText
    before: TextMark
    after: TextMark
    text: str
    written_milliseconds: int
    number: int


def mark_text(text: str) -> TextMark:
    """The mark of a text."""
    return TextMark(len(text), sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24])


def feedback_score_id(trace_id: TraceId) -> str:
    """The id of a turn's feedback, the same as LibreChat's own."""
    return f"feedback-{trace_id}"


def feedback_digest(feedback: Feedback | None) -> str | None:
    """What is remembered of sent feedback; None without feedback."""
    if feedback is None:
        return None
    return mark_text(f"{feedback.rating}\x00{feedback.tag or ''}\x00{feedback.text or ''}").digest


def make_feedback_score(
    sent: SentTurn, message: Message, feedback: Feedback, mask: MakeMasker | None
) -> Score:
    """Thumbs up is 1, down is 0. Tag and text are the comment; the content policy decides how much is shown of the
    text, and of a tag that is not one of LibreChat's."""
    text = shown_text(feedback.text, sent, mask)
    tag = feedback.tag if feedback.tag in FEEDBACK_TAGS else shown_text(feedback.tag, sent, mask)
    comment = " — ".join(part for part in (tag, text) if part)
    metadata = {"message_id": message.message_id, "rating": feedback.rating}
    if tag is not None:
        metadata["tag"] = tag
    return Score(
        id=feedback_score_id(sent.trace_id),
        trace_id=sent.trace_id,
        name=FEEDBACK_NAME,
        type=ScoreType.BOOLEAN,
        value=1 if feedback.rating == "thumbsUp" else 0,
        comment=comment or None,
        metadata=metadata,
        timestamp_milliseconds=message.created_milliseconds or sent.start_milliseconds,
    )


def find_edit(which: EditedText, sent: SentTurn, text: str, written_milliseconds: int) -> Edit | None:
    """The edit between what was sent and what the row holds now, None if nothing differs."""
    before = sent.answer if which is EditedText.ANSWER else sent.question
    after = mark_text(text)
    if before is None or before == after:
        return None
    return Edit(which, before, after, text, written_milliseconds, sent.edits)


def is_lengthened(edit: Edit) -> bool:
    """Whether an answer begins with all of the one that was sent, and goes on."""
    is_longer = edit.after.characters > edit.before.characters > 0
    return (
        edit.which is EditedText.ANSWER
        and is_longer
        and mark_text(edit.text[: edit.before.characters]) == edit.before
    )


def written_out(milliseconds: int) -> str:
    """A time as ISO 8601 in UTC, for metadata."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def make_edit_trace(sent: SentTurn, edit: Edit, mask: MakeMasker | None) -> Trace:
    """The event that shows an edit, as a piece of the turn's trace; its record has a number of its own.

    It stands at the end of the root: at its own time it would stretch the trace's latency from seconds to days.
    """
    metadata = {
        "edited": edit.which.value,
        "old_characters": str(edit.before.characters),
        "new_characters": str(edit.after.characters),
        "edited_at": written_out(edit.written_milliseconds),
    }
    event = Observation(
        id=observation_id(sent.message_id, "edit", edit.number),
        parent_id=observation_id(sent.message_id, "root"),
        type=ObservationType.EVENT,
        name="edit",
        start_milliseconds=sent.end_milliseconds,
        end_milliseconds=sent.end_milliseconds,
        output=shown_text(edit.text, sent, mask),
        metadata=metadata,
    )
    return make_piece(sent, (event,), f"edit:{edit.number}")


def make_piece(sent: SentTurn, observations: tuple[Observation, ...], piece: str) -> Trace:
    """Observations that belong to the trace of a turn that was sent, under a record of their own."""
    return Trace(
        id=sent.trace_id,
        name=TURN_TRACE_NAME,
        message_id=sent.message_id,
        document_key=sent.document_key,
        user_id=sent.user_id,
        session_id=sent.session_id,
        tags=sent.tags,
        metadata={"message_id": sent.message_id},
        observations=observations,
        piece=piece,
    )


def make_correction_score(sent: SentTurn, edit: Edit, mask: MakeMasker | None) -> Score | None:
    """The edited answer as Langfuse's correction; None for a question, and if no text may be shown."""
    text = shown_text(edit.text, sent, mask)
    if edit.which is not EditedText.ANSWER or text is None:
        return None
    return Score(
        id=f"correction-{sent.trace_id}",
        trace_id=sent.trace_id,
        name=CORRECTION_NAME,
        type=ScoreType.CORRECTION,
        value=text,
        comment=None,
        metadata={"message_id": sent.message_id},
        timestamp_milliseconds=sent.start_milliseconds,
    )


def shown_text(text: str | None, sent: SentTurn, mask: MakeMasker | None) -> str | None:
    """A text under the content choice of the sent turn, and no longer than a text of the turn itself; None where it may
    not be shown."""
    if not text or sent.content is ContentChoice.NONE:
        return None
    if sent.content is ContentChoice.FULL:
        return Allowance(Bounds()).take(text)
    return Allowance(Bounds(), mask()).take(text) if mask is not None else None
