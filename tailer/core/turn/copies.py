"""Whether a row is a copy (a fork, a duplicate, an import, a fork of a shared link): nothing was generated for it.

Nothing in LibreChat marks a copy. All rows of a copy are inserted in one burst and keep the `createdAt` of the
original. `_id` holds the second of the insertion by MongoDB's clock, `createdAt` is by LibreChat's. The two clocks may
stand apart, by the same stretch for all rows, so one row alone tells nothing: only differences between rows decide.

Seen at 0.7.7, 0.7.9, 0.8.0, 0.8.4 and 0.8.8-rc1: the lag of a genuine row (`_id` less `createdAt`) varies by 1.42 s
at the most, of which one second is the resolution of `_id`. Until 0.7.5 a copy is stamped with the time of the copying
and cannot be told from a turn.
"""

from collections.abc import Iterable, Iterator, Sequence

from tailer.core.identity import DocumentKey, inserted_seconds
from tailer.core.librechat.content import ReasoningPart, TextPart, ToolCall
from tailer.core.librechat.conversations import Conversation
from tailer.core.librechat.messages import Message
from tailer.core.light_dataclass import light_dataclass

_SPREAD_MILLISECONDS = 1_500
"""Lags of genuine rows differ by less."""
_BURST_SECONDS = 1
"""A question and its answer are next to each other in the burst that copies them."""
_MENDED_MILLISECONDS = 1_000
"""A conversation that was deleted while its answer was written is stored anew right after the answer."""
_SAVED_TOGETHER_MILLISECONDS = 100
"""A conversation that is stored in one go with the answer is no copy of it; nobody forks an answer within that time."""
_AGREEMENT_MILLISECONDS = 3_000
"""Rows of two conversations with lags as close as this were stamped by the same pair of clocks."""
_OLDEST_MILLISECONDS = 30 * 86_400_000
"""No clock is believed to be wrong by more, where no other row says that it is."""


@light_dataclass(frozen=True, slots=True)
class Stamp:
    """When a document was inserted, by MongoDB's clock, and created, by LibreChat's."""

    inserted_seconds: int
    created_milliseconds: int

    @property
    def lag_milliseconds(self) -> int:
        """How much later it was inserted than created; the distance of the clocks is in it."""
        return self.inserted_seconds * 1000 - self.created_milliseconds


@light_dataclass(frozen=True, slots=True)
class Surroundings:
    """What stands around a row. `billed`: transactions name it. `conversation` and `question` are their stamps, None
    where unknown. `extracted`: the row is one agent's share of another answer. `created_apart`: another row of the
    conversation was inserted with it and created at another time. `lags_elsewhere`: the lags of rows of other
    conversations that were inserted shortly before or after, None if not read."""

    billed: bool = False
    conversation: Stamp | None = None
    question: Stamp | None = None
    extracted: bool = False
    created_apart: bool = False
    lags_elsewhere: tuple[int, ...] | None = None


ALONE = Surroundings()
"""Nothing is known but the row itself."""


def is_copy(message: Message, surroundings: Surroundings = ALONE) -> bool:
    """Whether a row is a copy; a row of which nothing tells so is none."""
    return _decide(message, surroundings) or False


def needs_others(message: Message, surroundings: Surroundings) -> bool:
    """Whether only rows of other conversations can tell if a row is a copy."""
    if _decide(message, surroundings) is not None:
        return False
    own = stamp(message.key, message.created_milliseconds)
    return own is not None and abs(own.lag_milliseconds) > _AGREEMENT_MILLISECONDS


def may_be_extracted(message: Message, surroundings: Surroundings) -> bool:
    """Whether a response looks as if it were one agent's share of a parallel answer, stored as an answer of its own
    (`POST /api/messages/branch`, 0.8.2): such a row has no tokens, no usage and no sampling decision."""
    counted = message.token_count is not None or message.usage is not None or message.sampling_decided
    ended = message.error or message.unfinished
    return bool(message.parts) and not (counted or ended or surroundings.billed or message.created_by_user)


def is_extract(message: Message, source: Message) -> bool:
    """Whether a response repeats exactly what one agent wrote in another response.

    Only what agents write and do counts: the marks of LibreChat's interface (`activity_label`, 0.8.8) are copied too.
    """
    own = [_signature(part) for part in _authored(message)]
    authored = list(_authored(source))
    agents = {part.agent_id for part in authored if part.agent_id is not None}
    return any(
        own == [_signature(part) for part in authored if part.agent_id == agent_id] for agent_id in agents
    )


def _authored(message: Message) -> Iterator[TextPart | ReasoningPart | ToolCall]:
    return (part for part in message.parts if isinstance(part, TextPart | ReasoningPart | ToolCall))


def _signature(part: TextPart | ReasoningPart | ToolCall) -> object:
    if isinstance(part, ToolCall):
        return part.call_id, part.name, part.output
    return type(part), part.text


def stamp(key: DocumentKey, created_milliseconds: int | None) -> Stamp | None:
    """The stamp of a document, None where one of the times is unknown."""
    seconds = inserted_seconds(key)
    return None if seconds is None or created_milliseconds is None else Stamp(seconds, created_milliseconds)


def look_around(
    own: Stamp | None,
    others: Iterable[Stamp],
    *,
    question: Stamp | None,
    conversation: Conversation | None,
    billed: bool,
) -> Surroundings:
    """The surroundings of a row within its conversation; `others` are the other rows of it."""
    made = None if conversation is None else stamp(conversation.key, conversation.created_milliseconds)
    return Surroundings(
        billed=billed,
        conversation=made,
        question=question,
        created_apart=own is not None and any(_created_apart(own, other, made) for other in others),
    )


def _created_apart(own: Stamp, other: Stamp, conversation: Stamp | None) -> bool:
    """Whether two rows were inserted together although they were created apart: one burst wrote both."""
    if conversation is not None and other.created_milliseconds < conversation.created_milliseconds:
        # A row that is older than its own conversation is a copy and says nothing of the turns that follow it.
        return False
    between = abs(own.inserted_seconds - other.inserted_seconds)
    created = abs(own.created_milliseconds - other.created_milliseconds)
    return between <= _BURST_SECONDS and created >= between * 1000 + _SPREAD_MILLISECONDS


def _decide(message: Message, surroundings: Surroundings) -> bool | None:
    """None where neither the row nor its conversation tells."""
    if message.run_id is not None:
        # A genuine response was made by the run of its own id (0.8.7); a copy keeps the run of the original.
        return message.run_id != message.message_id
    if message.created_milliseconds is None or message.updated_milliseconds is None:
        # Imports of other programs have no `updatedAt`.
        return True
    if surroundings.billed:
        return False
    if surroundings.extracted:
        return True
    own = stamp(message.key, message.created_milliseconds)
    if own is None:
        return False
    if surroundings.conversation is not None and _is_older_than_conversation(message, own, surroundings):
        return True
    if _was_inserted_apart(own, surroundings.question):
        return False
    if surroundings.created_apart:
        return True
    if surroundings.lags_elsewhere is None:
        return None
    return _disagrees(own, surroundings.lags_elsewhere)


def _is_older_than_conversation(message: Message, own: Stamp, surroundings: Surroundings) -> bool:
    """A copied conversation is created when it is copied, its rows have been long before: both by LibreChat's clock.

    LibreChat stores a conversation after its first question and before its first answer.
    """
    conversation = surroundings.conversation
    if conversation is None or own.inserted_seconds > conversation.inserted_seconds + _BURST_SECONDS:
        # Inserted later than the conversation: a turn in it, made by a process whose clock is behind.
        return False
    if message.created_by_user:
        return own.lag_milliseconds - conversation.lag_milliseconds >= _SPREAD_MILLISECONDS
    slack = _MENDED_MILLISECONDS if surroundings.question is None else _SAVED_TOGETHER_MILLISECONDS
    return own.created_milliseconds + slack < conversation.created_milliseconds


def _was_inserted_apart(own: Stamp, question: Stamp | None) -> bool:
    return question is not None and own.inserted_seconds - question.inserted_seconds > _BURST_SECONDS


def _disagrees(own: Stamp, lags: Sequence[int]) -> bool:
    """Whether no row of another conversation has the lag of this one: then it is no matter of clocks."""
    if not lags:
        return abs(own.lag_milliseconds) > _OLDEST_MILLISECONDS
    return all(abs(lag - own.lag_milliseconds) > _AGREEMENT_MILLISECONDS for lag in lags)
