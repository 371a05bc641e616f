"""Spending without messages: calls of LibreChat's remote API, and turns that were deleted before they were read.

Both have nothing but transactions, which hold tokens and cost. Prompt and answer of the API are stored nowhere.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tailer.core.identity import (
    DocumentKey,
    ObservationId,
    observation_id,
    spending_trace_id,
    title_trace_id,
    turn_trace_id,
)
from tailer.core.librechat.documents import Transaction
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

    def _of_title(self, *, title: bool) -> "Spending":
        """What its title cost, or the rest."""
        rows = [entry for entry in self.transactions if (entry.context == TITLE_CONTEXT) is title]
        return replace(self, transactions=tuple(rows))

    @property
    def parts(self) -> tuple["Spending", ...]:
        """What has a trace each: a turn, and its title."""
        if not self.is_deleted_turn:
            return (self,)
        return self._of_title(title=False), self._of_title(title=True)


def names_chat_message(reference: str) -> bool:
    """Whether an id has the form of a chat's message: a UUID. The remote API has ids of other forms."""
    return _CHAT_MESSAGE.fullmatch(reference) is not None


def build_spending_traces(
    spending: Spending, *, user_name: str | None, tags: tuple[str, ...]
) -> tuple[Trace, ...]:
    """The trace of a call, with a generation for each model call; those of a deleted turn and of its title. None of
    what states no tokens."""
    made = (_build_trace(part, user_name, tags) for part in spending.parts)
    return tuple(trace for trace in made if trace is not None)


def _build_trace(spending: Spending, user_name: str | None, tags: tuple[str, ...]) -> Trace | None:
    usage = resolve_spending(spending.transactions)
    times = [
        entry.created_milliseconds
        for entry in spending.transactions
        if entry.created_milliseconds is not None
    ]
    if usage is None or not times:
        return None
    if spending.is_deleted_turn:
        build = _build_deleted_title if usage.calls[0].context == TITLE_CONTEXT else _build_deleted_turn
        return build(spending, usage, times, user_name, tags)
    seed = f"usage-{spending.reference}"
    root_id = observation_id(seed, "root")
    return Trace(
        id=spending_trace_id(spending.reference),
        name=SPENDING_TRACE_NAME,
        message_id=spending.reference,
        document_key=spending.key,
        user_id=user_name,
        session_id=spending.conversation_id,
        tags=(*tags, "api"),
        metadata={"reference": spending.reference},
        observations=tuple(_build_calls(seed, usage, times, root_id, first_is_root=True)),
    )


def _build_deleted_turn(
    spending: Spending, usage: Usage, times: Sequence[int], user_name: str | None, tags: tuple[str, ...]
) -> Trace:
    """The turn under its own id, so that it is there once, whether it was read before it was deleted or not."""
    seed = spending.reference
    root = Observation(
        id=observation_id(seed, "root"),
        parent_id=None,
        type=ObservationType.AGENT,
        name="turn",
        start_milliseconds=min(times),
        end_milliseconds=max(times),
        status_message="deleted before it was read",
        metadata={"timing": "start unknown"},
    )
    return Trace(
        id=turn_trace_id(spending.reference),
        name=TURN_TRACE_NAME,
        message_id=spending.reference,
        document_key=spending.key,
        user_id=user_name,
        session_id=spending.conversation_id,
        tags=(*tags, "deleted"),
        metadata={"message_id": spending.reference, "outcome": "deleted"},
        observations=(root, *_build_calls(seed, usage, times, root.id, first_is_root=False)),
    )


def _build_deleted_title(
    spending: Spending, usage: Usage, times: Sequence[int], user_name: str | None, tags: tuple[str, ...]
) -> Trace:
    """The title's trace under its own id, without the title."""
    seed = f"title-{spending.reference}"
    return Trace(
        id=title_trace_id(spending.reference),
        name=TITLE_TRACE_NAME,
        message_id=spending.reference,
        document_key=spending.key,
        user_id=user_name,
        session_id=spending.conversation_id,
        tags=(*tags, "title", "deleted"),
        metadata={"message_id": spending.reference},
        observations=tuple(
            _build_calls(seed, usage, times, observation_id(seed, "root"), first_is_root=True)
        ),
    )


def _build_calls(
    seed: str, usage: Usage, times: Sequence[int], root_id: ObservationId, *, first_is_root: bool
) -> list[Observation]:
    return [
        build_generation(
            Frame(
                id=root_id if first_is_root and index == 0 else observation_id(seed, "generation", index),
                parent_id=None if first_is_root and index == 0 else root_id,
                name=call.model or "model call",
                start_milliseconds=min(times),
                end_milliseconds=max(times),
            ),
            call,
            usage,
            model=None,
            metadata={"timing": "not stored", "context": call.context},
        )
        for index, call in enumerate(usage.calls)
    ]
