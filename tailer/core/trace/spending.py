"""Spending without messages: calls of LibreChat's remote API, which writes transactions and no conversation.

Such a call becomes a small trace of its own that holds tokens and cost. Prompt and answer are stored nowhere.
"""

from dataclasses import dataclass

from tailer.core.identity import DocumentKey, observation_id, spending_trace_id
from tailer.core.librechat.documents import Transaction
from tailer.core.trace.generations import Frame, build_generation
from tailer.core.trace.observations import Trace
from tailer.core.turn.usage import resolve_spending

SPENDING_TRACE_NAME = "librechat-api-usage"


@dataclass(frozen=True, slots=True)
class Spending:
    """The transactions of one call, in the order written; `reference` is their message id, or their conversation's."""

    key: DocumentKey
    reference: str
    conversation_id: str
    user_id: str | None
    transactions: tuple[Transaction, ...]


def build_spending_trace(spending: Spending, *, user_name: str | None, tags: tuple[str, ...]) -> Trace | None:
    """The trace of a call, a generation for each model call; None where no transaction states tokens."""
    usage = resolve_spending(spending.transactions)
    times = [
        entry.created_milliseconds
        for entry in spending.transactions
        if entry.created_milliseconds is not None
    ]
    if usage is None or not times:
        return None
    seed = f"usage-{spending.reference}"
    root_id = observation_id(seed, "root")
    observations = tuple(
        build_generation(
            Frame(
                id=root_id if index == 0 else observation_id(seed, "generation", index),
                parent_id=None if index == 0 else root_id,
                name=call.model or "model call",
                start_milliseconds=min(times),
                end_milliseconds=min(times),
            ),
            call,
            usage,
            model=None,
            metadata={"timing": "not stored", "context": call.context},
        )
        for index, call in enumerate(usage.calls)
    )
    trace_id = spending_trace_id(spending.reference)
    return Trace(
        id=trace_id,
        name=SPENDING_TRACE_NAME,
        message_id=spending.reference,
        document_key=spending.key,
        user_id=user_name,
        session_id=spending.conversation_id,
        tags=(*tags, "api"),
        metadata={"reference": spending.reference},
        observations=observations,
    )
