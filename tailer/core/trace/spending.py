"""Spending without messages: calls of LibreChat's remote API, and turns that were deleted before they were read.

Both have nothing but transactions, which hold tokens and cost. Prompt and answer of the API are stored nowhere.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tailer.core.identity import (
    DocumentKey,
    ObservationId,
    TraceId,
    observation_id,
    spending_trace_id,
    title_trace_id,
    turn_trace_id,
)
from tailer.core.librechat.transactions import Transaction
from tailer.core.policy.users import User
from tailer.core.trace.build import TITLE_TRACE_NAME, TURN_TRACE_NAME
from tailer.core.trace.generations import Frame, build_generation
from tailer.core.trace.observations import Observation, ObservationType, Trace
from tailer.core.turn.usage import TITLE_CONTEXT, Usage, resolve_spending

SPENDING_TRACE_NAME = "librechat-api-usage"
_CHAT_MESSAGE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(_|:\w+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Spending:
    """The transactions of one call, in the order written; `reference` is their message id, or else their conversation's
    id.

    `is_deleted_turn`: they belong to a chat's message that is no longer stored, which `may_be_temporary` unless the
    stream said otherwise. `user` is what was read of the user, if anything is.
    """

    key: DocumentKey
    reference: str
    conversation_id: str
    user_id: str | None
    transactions: tuple[Transaction, ...]
    is_deleted_turn: bool = False
    may_be_temporary: bool = False
    user: User | None = None

    @property
    def tenant_id(self) -> str | None:
        """The tenant, as any of the transactions names it."""
        return next((entry.tenant_id for entry in self.transactions if entry.tenant_id is not None), None)


def names_chat_message(reference: str) -> bool:
    """Whether an id has the form of a chat's message: a UUID. The remote API has ids of other forms."""
    return _CHAT_MESSAGE.fullmatch(reference) is not None


def make_spending(
    key: DocumentKey,
    reference: str,
    conversation_id: str,
    user_id: str | None,
    transactions: Sequence[Transaction],
) -> Spending | None:
    """What the ledger alone tells of transactions that no stored message has; None where there are none.

    It does not say whether a deleted chat was temporary. Where the stream of messages did, the turn's own entry sends
    it. What names no message is known by its conversation, and that of a chat has an id like a message's.
    """
    of_chat = names_chat_message(reference)
    if not transactions:
        return None
    return Spending(
        key,
        reference,
        conversation_id,
        user_id,
        tuple(transactions),
        is_deleted_turn=of_chat and reference != conversation_id,
        may_be_temporary=of_chat,
    )


def build_spending_traces(
    spending: Spending, *, user_name: str | None, tags: tuple[str, ...]
) -> tuple[Trace, ...]:
    """The trace of a call, with a generation for each model call; those of a deleted turn and of its title. None of
    what states no tokens.

    A deleted turn has the ids that it would have had, so that it is there once, whether it was read before or not.
    """
    builder = _Builder(spending, user_name, tags)
    if not spending.is_deleted_turn:
        made = [builder.build_call()]
    else:
        title = [entry for entry in spending.transactions if entry.context == TITLE_CONTEXT]
        own = [entry for entry in spending.transactions if entry.context != TITLE_CONTEXT]
        made = [builder.build_deleted_turn(own), builder.build_deleted_title(title)]
    return tuple(trace for trace in made if trace is not None)


@dataclass(frozen=True, slots=True)
class _Billed:
    """What transactions tell: the calls, and the times between which they were made."""

    usage: Usage
    start_milliseconds: int
    end_milliseconds: int


@dataclass(frozen=True, slots=True)
class _Builder:
    spending: Spending
    user_name: str | None
    tags: tuple[str, ...]

    def build_call(self) -> Trace | None:
        reference, billed = self.spending.reference, _bill(self.spending.transactions)
        if billed is None:
            return None
        calls = _build_calls(f"usage-{reference}", billed)
        trace_id, metadata = spending_trace_id(reference), {"reference": reference}
        return self._build(trace_id, SPENDING_TRACE_NAME, ("api",), metadata, calls)

    def build_deleted_turn(self, transactions: Sequence[Transaction]) -> Trace | None:
        reference, billed = self.spending.reference, _bill(transactions)
        if billed is None:
            return None
        root = Observation(
            id=observation_id(reference, "root"),
            parent_id=None,
            type=ObservationType.AGENT,
            name="turn",
            start_milliseconds=billed.start_milliseconds,
            end_milliseconds=billed.end_milliseconds,
            status_message="deleted before it was read",
            metadata={"timing": "start unknown"},
        )
        steps = (root, *_build_calls(reference, billed, parent_id=root.id))
        metadata = {"message_id": reference, "outcome": "deleted"}
        return self._build(turn_trace_id(reference), TURN_TRACE_NAME, ("deleted",), metadata, steps)

    def build_deleted_title(self, transactions: Sequence[Transaction]) -> Trace | None:
        reference, billed = self.spending.reference, _bill(transactions)
        if billed is None:
            return None
        calls = _build_calls(f"title-{reference}", billed)
        trace_id, metadata = title_trace_id(reference), {"message_id": reference}
        return self._build(trace_id, TITLE_TRACE_NAME, ("title", "deleted"), metadata, calls)

    def _build(
        self,
        trace_id: TraceId,
        name: str,
        own_tags: tuple[str, ...],
        metadata: Mapping[str, str],
        observations: tuple[Observation, ...],
    ) -> Trace:
        return Trace(
            id=trace_id,
            name=name,
            message_id=self.spending.reference,
            document_key=self.spending.key,
            user_id=self.user_name,
            session_id=self.spending.conversation_id,
            tags=(*self.tags, *own_tags),
            metadata=metadata,
            observations=observations,
        )


def _bill(transactions: Sequence[Transaction]) -> _Billed | None:
    """None where no transaction states tokens, or a time."""
    usage = resolve_spending(transactions)
    times = [entry.created_milliseconds for entry in transactions if entry.created_milliseconds is not None]
    return None if usage is None or not times else _Billed(usage, min(times), max(times))


def _build_calls(
    seed: str, billed: _Billed, *, parent_id: ObservationId | None = None
) -> tuple[Observation, ...]:
    """A generation for each model call; without a parent the first one is the root."""
    root_id = observation_id(seed, "root")
    return tuple(
        build_generation(
            Frame(
                id=root_id if parent_id is None and index == 0 else observation_id(seed, "generation", index),
                parent_id=None if parent_id is None and index == 0 else parent_id or root_id,
                name=call.model or "model call",
                start_milliseconds=billed.start_milliseconds,
                end_milliseconds=billed.end_milliseconds,
            ),
            call,
            billed.usage,
            model=None,
            metadata={"timing": "not stored", "context": call.context},
        )
        for index, call in enumerate(billed.usage.calls)
    )
