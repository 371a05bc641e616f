"""The record of a turn, made once from the rows that were read.

Most turns need nothing more than their own rows. Whether a row is a copy may need other rows: the `Draft` says which.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from tailer.core.identity import DocumentKey
from tailer.core.librechat.agent_ids import AGENT_PREFIX
from tailer.core.librechat.content import HandOffPart, Part, ReasoningPart, TextPart, ToolCall
from tailer.core.librechat.conversations import Agent, Conversation
from tailer.core.librechat.messages import Message
from tailer.core.librechat.transactions import Transaction
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
from tailer.core.turn.ledgers import entries_of_user
from tailer.core.turn.own_counts import may_be_own_count
from tailer.core.turn.readback import Row
from tailer.core.turn.selection import RowSelection
from tailer.core.turn.temporary import settle_temporary
from tailer.core.turn.transactions_by_time import until_saved
from tailer.core.turn.turns import Sibling, TurnRecord
from tailer.core.turn.usage import SUBAGENT_CONTEXT

_OF_ONE_AGENT = (TextPart, ReasoningPart, HandOffPart)


class ParentTurn(NamedTuple):
    """The answer whose tool call started a detached sub-agent."""

    conversation_id: str
    message_id: str


@light_dataclass(frozen=True, slots=True)
class Draft:
    """What was read for a turn whose own row still exists, before it is known whether other rows must be read.

    `earlier_tokens` is the `tokenCount` of all that came before the question, None if it is not known or not needed.
    """

    selection: RowSelection
    response: Message | None
    question: Message | None
    conversation: Conversation | None
    transactions: tuple[Transaction, ...]
    surroundings: Surroundings
    billed_with: str | None = None
    earlier_tokens: int | None = None

    @property
    def parent_turn(self) -> ParentTurn | None:
        """The turn in whose ledger the calls of a detached sub-agent may be, which the row itself reports too; None
        where there is none, or where the ledger has entries of the row's own."""
        own, thread = self.response, self.conversation.thread if self.conversation is not None else None
        if own is None or own.usage is None or own.subagent_task is None or self.transactions:
            return None
        if thread is None or thread.parent_conversation_id is None:
            return None
        message_id = own.subagent_task.parent_run_id or thread.parent_message_id
        return None if message_id is None else ParentTurn(thread.parent_conversation_id, message_id)

    @property
    def needs_rows_elsewhere(self) -> bool:
        """Whether rows of other conversations must tell if the turn is a copy."""
        own = self.response or self.question
        return own is not None and needs_others(own, self.surroundings)

    @property
    def rows_to_compare(self) -> tuple[Row, ...]:
        """The other answers to the question that tell whether this one was taken out of one of them."""
        if self.response is None or not may_be_extracted(self.response, self.surroundings):
            return ()
        return tuple(row for row in self.selection.responses if row.key != self.selection.row.key)

    @property
    def rows_to_count(self) -> tuple[Row, ...]:
        """The rows before the question whose `tokenCount` tells whether LibreChat counted the prompt by itself."""
        selection = self.selection
        if self.response is None or selection.is_cut or selection.ancestors_left_out:
            return ()
        if not may_be_own_count(self.response, self.question, self.transactions):
            return ()
        return selection.ancestors

    @property
    def agent_ids(self) -> frozenset[str]:
        """The saved agents that the turn names."""
        return named_agent_ids(self.response, self.conversation)

    def with_counts(self, counts: Iterable[int | None]) -> "Draft":
        """The draft with what LibreChat counted of the rows before the question."""
        known = [count for count in counts if count is not None]
        complete = len(known) == len(self.selection.ancestors)
        return replace(self, earlier_tokens=sum(known) if complete else None)

    def with_answers(self, answers: Iterable[Message]) -> "Draft":
        """The draft after it was compared with the other answers."""
        own = self.response
        extracted = own is not None and any(is_extract(own, other) for other in answers)
        return replace(self, surroundings=replace(self.surroundings, extracted=extracted))

    def with_ledger_of(self, parent: ParentTurn, entries: Iterable[Transaction]) -> "Draft":
        """The draft with what the ledger has for its parent turn: LibreChat bills each call of a detached sub-agent
        there."""
        own = self.selection.row.user_id
        is_billed = any(entry.context == SUBAGENT_CONTEXT and entry.user_id == own for entry in entries)
        return replace(self, billed_with=parent.message_id if is_billed else None)

    def with_rows_elsewhere(self, rows: Iterable[Row]) -> "Draft":
        """The draft with the lags of rows of other conversations."""
        stamps = (stamp(row.key, row.created_milliseconds) for row in rows)
        lags = tuple(found.lag_milliseconds for found in stamps if found is not None)
        return replace(self, surroundings=replace(self.surroundings, lags_elsewhere=lags))


def make_draft(
    selection: RowSelection,
    messages: Mapping[DocumentKey, Message],
    conversation: Conversation | None,
    transactions: tuple[Transaction, ...],
    *,
    now_seconds: float | None = None,
) -> Draft | None:
    """The draft of a turn; None if its own row has vanished. `now_seconds` is since 1970, None if that is not known."""
    own = messages.get(selection.row.key)
    if own is None:
        return None
    question = messages.get(selection.question.key) if selection.question is not None else None
    asked = None if question is own else question
    own = settle_temporary(own, conversation, asked, now_seconds=now_seconds)
    transactions = entries_of_user(selection.row.user_id, transactions)
    if not own.says_temporary:
        transactions = until_saved(own, transactions)
    return Draft(
        selection=selection,
        response=None if own.created_by_user else own,
        question=own if own.created_by_user else question,
        conversation=conversation,
        transactions=transactions,
        surroundings=_look_around(selection, conversation, transactions),
        earlier_tokens=None if selection.ancestors or selection.is_cut else 0,
    )


def make_record(
    draft: Draft,
    messages: Mapping[DocumentKey, Message],
    agents: Mapping[str, Agent],
    user: User | None,
) -> TurnRecord:
    """The record of a turn, with the agents that it names as they were then and its user, as far as they may be
    read."""
    selection = draft.selection
    found = [messages[ancestor.key] for ancestor in selection.ancestors if ancestor.key in messages]
    anchor = draft.response or draft.question
    at = anchor.created_milliseconds if anchor is not None else None
    named = {agent_id: agent_at(agents[agent_id], at) for agent_id in draft.agent_ids if agent_id in agents}
    agent, exact = named.get(saved_agent_id(draft.response, draft.conversation) or "", (None, True))
    return TurnRecord(
        response=draft.response,
        question=draft.question,
        history=tuple(reversed(found)),
        history_left_out=selection.ancestors_left_out,
        history_cut=selection.is_cut,
        siblings=tuple(
            [
                Sibling(row.message_id, row.created_milliseconds, model=row.model)
                for row in selection.responses
            ]
        ),
        question_siblings=tuple(
            [
                Sibling(
                    row.message_id,
                    row.created_milliseconds,
                    answered=row.message_id in selection.answered_ids,
                )
                for row in selection.questions
            ]
        ),
        transactions=draft.transactions,
        billed_with=draft.billed_with,
        conversation=draft.conversation,
        agent=agent,
        agents={agent_id: found for agent_id, (found, _) in named.items()},
        user=user,
        surroundings=draft.surroundings,
        earlier_tokens=draft.earlier_tokens,
        conversation_went_on=selection.went_on,
        agent_exact=exact,
    )


def _look_around(
    selection: RowSelection, conversation: Conversation | None, transactions: tuple[Transaction, ...]
) -> Surroundings:
    row = selection.row
    question = selection.question if selection.question is not row else None
    stamps = [stamp(other.key, other.created_milliseconds) for other in selection.others]
    return look_around(
        stamp(row.key, row.created_milliseconds),
        [found for found in stamps if found is not None],
        question=stamp(question.key, question.created_milliseconds) if question is not None else None,
        conversation=conversation,
        billed=row.message_id in [entry.message_id for entry in transactions],
    )


def saved_agent_id(response: Message | None, conversation: Conversation | None) -> str | None:
    """The saved agent that answered, None for a plain model, whose conversation has an encoded model as `agent_id`."""
    model = response.model if response is not None else None
    if model is not None:
        return model if model.startswith(AGENT_PREFIX) else None
    agent_id = conversation.agent_id if conversation is not None else None
    return agent_id if agent_id is not None and agent_id.startswith(AGENT_PREFIX) else None


def named_agent_ids(response: Message | None, conversation: Conversation | None) -> frozenset[str]:
    """The saved agents that a turn names: the one that answered, and those of its parts, hand-offs and sub-agents."""
    parts = response.parts if response is not None else ()
    named = {saved_agent_id(response, conversation), *_agent_ids_in(parts)}
    return frozenset([item for item in named if item is not None and item.startswith(AGENT_PREFIX)])


def _agent_ids_in(parts: Sequence[Part]) -> Iterator[str | None]:
    for part in parts:
        if isinstance(part, _OF_ONE_AGENT):
            yield part.agent_id
        elif isinstance(part, ToolCall):
            yield from (part.agent_id, part.receiver_id, part.subagent_type)
            yield from _agent_ids_in(part.inner)


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
