"""Which rows a turn needs, decided from rows without content, and the record assembled from the rows that were read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from tailer.core.identity import DocumentKey
from tailer.core.librechat.content import HandOffPart, Part, ReasoningPart, TextPart, ToolCall
from tailer.core.librechat.conversations import Agent, Conversation
from tailer.core.librechat.documents import Message, Transaction, inserted_seconds
from tailer.core.light_dataclass import light_dataclass
from tailer.core.policy.users import User
from tailer.core.turn.copies import (
    Surroundings,
    is_extract,
    look_around,
    may_be_extracted,
    needs_others,
    stamp,
)
from tailer.core.turn.history import Ancestors, select_ancestors
from tailer.core.turn.turns import Sibling, TurnRecord

_AGENT_PREFIX = "agent_"


@light_dataclass(frozen=True, slots=True)
class Row:
    """A row of `messages` without its content: enough to decide whether it must be read."""

    key: DocumentKey
    message_id: str
    conversation_id: str
    parent_message_id: str | None
    user_id: str | None
    created_by_user: bool
    traced_natively: bool
    created_milliseconds: int | None
    stored_bytes: int
    refused: bool = False
    model: str | None = None


@light_dataclass(frozen=True, slots=True)
class DeletedRow:
    """What the stream reported about a response that was deleted before it was read."""

    message_id: str
    conversation_id: str


ConversationRows: TypeAlias = Mapping[tuple[str, str | None], Mapping[str, Row]]
"""The rows of conversations by (conversation id, owner), then by message id, because two users may own the same id."""


@light_dataclass(frozen=True, slots=True)
class RowSelection:
    """The rows to read for the turn of `row`: its question and the question's ancestors, newest first. `others` were
    inserted in the same second or next to it; `went_on`: the conversation has later rows;
    `answered_ids` are those of `questions` that got an answer and no refusal."""

    row: Row
    question: Row | None
    ancestors: tuple[Row, ...]
    ancestors_left_out: int
    responses: tuple[Row, ...]
    questions: tuple[Row, ...]
    others: tuple[Row, ...] = ()
    went_on: bool = False
    answered_ids: frozenset[str] = frozenset()

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows to read."""
        own = (self.row,) if self.question is None else (self.row, self.question)
        return (*own, *self.ancestors)

    @property
    def keys(self) -> Iterator[DocumentKey]:
        """The `_id`s to read."""
        return (row.key for row in self.rows)

    @property
    def stored_bytes(self) -> int:
        """The most that is read for this turn."""
        return sum(row.stored_bytes for row in self.rows)


def select_rows(row: Row, conversation: Mapping[str, Row], *, byte_limit: int) -> RowSelection:
    """Choose what to read for a response (or a question) from the rows of its conversation, by message id."""
    question = row if row.created_by_user else conversation.get(row.parent_message_id or "")
    if question is not None and not question.created_by_user:
        question = None
    # A row is not its own ancestor, whatever a broken chain of parents says.
    own = {row.message_id, question.message_id if question is not None else None}
    parents = {
        item.message_id: (item.parent_message_id, item.stored_bytes)
        for item in conversation.values()
        if item.message_id not in own
    }
    first_parent = question.parent_message_id if question is not None else None
    ancestors: Ancestors = select_ancestors(first_parent, parents, byte_limit=byte_limit)
    answered = question.message_id if question is not None else None
    questions = tuple(
        item
        for item in conversation.values()
        if question is not None and item.created_by_user and item.parent_message_id == first_parent
    )
    beside = {item.message_id for item in questions}
    return RowSelection(
        row=row,
        question=question,
        ancestors=tuple(conversation[message_id] for message_id in ancestors.message_ids),
        ancestors_left_out=ancestors.left_out,
        responses=tuple(
            item
            for item in conversation.values()
            if answered is not None and not item.created_by_user and item.parent_message_id == answered
        ),
        questions=questions,
        others=_inserted_with(row, conversation),
        went_on=_went_on(row, conversation),
        answered_ids=frozenset(
            item.parent_message_id
            for item in conversation.values()
            if item.parent_message_id in beside and not item.created_by_user and not item.refused
        ),
    )


def _went_on(row: Row, conversation: Mapping[str, Row]) -> bool:
    made = row.created_milliseconds
    return made is not None and any(
        item.created_milliseconds is not None and item.created_milliseconds > made
        for item in conversation.values()
    )


def _inserted_with(row: Row, conversation: Mapping[str, Row]) -> tuple[Row, ...]:
    second = inserted_seconds(row.key)
    if second is None:
        return ()
    near = {f"{second + between:08x}" for between in (-1, 0, 1)}
    return tuple(item for item in conversation.values() if item.key[:8] in near and item.key != row.key)


def group_selections(selections: Sequence[RowSelection], *, byte_limit: int) -> Iterator[list[RowSelection]]:
    """Groups that hold at most `byte_limit` stored bytes; a single larger turn is a group of its own.

    Turns of one conversation are in the same group and share their rows, which count once.
    """
    group: list[RowSelection] = []
    read: set[DocumentKey] = set()
    size = 0
    for selection in sorted(selections, key=_conversation_of):
        more = sum(row.stored_bytes for row in selection.rows if row.key not in read)
        if group and size + more > byte_limit:
            yield group
            group, read, size = [], set(), 0
            more = selection.stored_bytes
        group.append(selection)
        read.update(selection.keys)
        size += more
    if group:
        yield group


def _conversation_of(selection: RowSelection) -> str:
    return selection.row.conversation_id


def make_record(
    selection: RowSelection,
    messages: Mapping[DocumentKey, Message],
    conversation: Conversation | None,
    transactions: tuple[Transaction, ...],
) -> TurnRecord | None:
    """The record of a turn from the rows that were read; None if its own row has vanished."""
    own = messages.get(selection.row.key)
    if own is None:
        return None
    question = messages.get(selection.question.key) if selection.question is not None else None
    found = [messages[ancestor.key] for ancestor in selection.ancestors if ancestor.key in messages]
    own = _settle_temporary(own, conversation)
    return TurnRecord(
        response=None if own.created_by_user else own,
        question=own if own.created_by_user else question,
        history=tuple(reversed(found)),
        history_left_out=selection.ancestors_left_out,
        siblings=tuple(Sibling(row.message_id, row.created_milliseconds) for row in selection.responses),
        question_siblings=tuple(
            Sibling(
                row.message_id,
                row.created_milliseconds,
                answered=row.message_id in selection.answered_ids,
            )
            for row in selection.questions
        ),
        transactions=transactions,
        conversation=conversation,
        surroundings=_look_around(selection, conversation, transactions),
        conversation_went_on=selection.went_on,
    )


def _settle_temporary(message: Message, conversation: Conversation | None) -> Message:
    """A row with an expiry date alone is no temporary chat where its conversation is none (retention modes)."""
    if message.temporary_by_expiry and conversation is not None and conversation.temporary is False:
        return replace(message, temporary=False)
    return message


def _look_around(
    selection: RowSelection, conversation: Conversation | None, transactions: tuple[Transaction, ...]
) -> Surroundings:
    row = selection.row
    question = selection.question if selection.question is not row else None
    stamps = (stamp(other.key, other.created_milliseconds) for other in selection.others)
    return look_around(
        stamp(row.key, row.created_milliseconds),
        (found for found in stamps if found is not None),
        question=stamp(question.key, question.created_milliseconds) if question is not None else None,
        conversation=conversation,
        billed=any(entry.message_id == row.message_id for entry in transactions),
    )


def needs_rows_elsewhere(record: TurnRecord | None) -> bool:
    """Whether rows of other conversations must tell if a turn is a copy."""
    if record is None:
        return False
    own = record.response or record.question
    return own is not None and needs_others(own, record.surroundings)


def rows_to_compare(record: TurnRecord | None, selection: RowSelection) -> tuple[Row, ...]:
    """The other answers to the question that must be read to tell whether this one was taken out of one of them."""
    if record is None or record.response is None:
        return ()
    if not may_be_extracted(record.response, record.surroundings):
        return ()
    return tuple(row for row in selection.responses if row.key != selection.row.key)


def add_answers(record: TurnRecord | None, answers: Iterable[Message]) -> TurnRecord | None:
    """The record after it was compared with the other answers."""
    if record is None or record.response is None:
        return record
    own = record.response
    extracted = any(is_extract(own, other) for other in answers)
    return replace(record, surroundings=replace(record.surroundings, extracted=extracted))


def add_rows_elsewhere(record: TurnRecord | None, rows: Iterable[Row]) -> TurnRecord | None:
    """The record with the lags of rows of other conversations."""
    if record is None:
        return None
    stamps = (stamp(row.key, row.created_milliseconds) for row in rows)
    lags = tuple(found.lag_milliseconds for found in stamps if found is not None)
    return replace(record, surroundings=replace(record.surroundings, lags_elsewhere=lags))


def saved_agent_id(record: TurnRecord | None) -> str | None:
    """The saved agent that answered, None for a plain model, whose conversation has an encoded model as `agent_id`."""
    if record is None:
        return None
    model = record.response.model if record.response is not None else None
    if model is not None:
        return model if model.startswith(_AGENT_PREFIX) else None
    agent_id = record.conversation.agent_id if record.conversation is not None else None
    return agent_id if agent_id is not None and agent_id.startswith(_AGENT_PREFIX) else None


def named_agent_ids(record: TurnRecord | None) -> frozenset[str]:
    """The saved agents that a turn names: the one that answered, and those of its parts, hand-offs and sub-agents."""
    if record is None:
        return frozenset()
    parts = record.response.parts if record.response is not None else ()
    named = {saved_agent_id(record), *_agent_ids_in(parts)}
    return frozenset(item for item in named if item is not None and item.startswith(_AGENT_PREFIX))


def _agent_ids_in(parts: Sequence[Part]) -> Iterator[str | None]:
    for part in parts:
        if isinstance(part, TextPart | ReasoningPart | HandOffPart):
            yield part.agent_id
        elif isinstance(part, ToolCall):
            yield from (part.agent_id, part.receiver_id, part.subagent_type)
            yield from _agent_ids_in(part.inner)


def add_agent(record: TurnRecord | None, agents: Mapping[str, Agent]) -> TurnRecord | None:
    """The record with the agents that it names, as they were then, and the one that answered, as far as they may be
    read."""
    if record is None:
        return None
    anchor = record.response or record.question
    at = anchor.created_milliseconds if anchor is not None else None
    named = {
        agent_id: agent_at(agents[agent_id], at) for agent_id in named_agent_ids(record) if agent_id in agents
    }
    if not named:
        return record
    agent, exact = named.get(saved_agent_id(record) or "", (None, True))
    return replace(
        record,
        agent=agent,
        agent_exact=exact,
        agents={agent_id: found for agent_id, (found, _) in named.items()},
    )


def agent_at(agent: Agent, at_milliseconds: int | None) -> tuple[Agent, bool]:
    """The version of an agent at a moment, and whether it is certain."""
    if at_milliseconds is None:
        return agent, False
    if agent.written_milliseconds is not None and agent.written_milliseconds <= at_milliseconds:
        return agent, True
    earlier = [
        version
        for version in agent.versions
        if version.written_milliseconds is not None and version.written_milliseconds <= at_milliseconds
    ]
    # A change that is no version (sharing an agent, a new avatar) moves the agent's own time only.
    return (earlier[-1], True) if earlier else (agent, agent.written_milliseconds is None)


def add_user(record: TurnRecord | None, user: User | None) -> TurnRecord | None:
    """The record with its user, where users are read at all."""
    return record if record is None or user is None else replace(record, user=user)
