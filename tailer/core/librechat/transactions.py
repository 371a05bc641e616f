"""What LibreChat billed: the rows of `transactions`, as far as they state tokens."""

from typing import Final

from tailer.core.librechat.bson_values import Document, amount, filled_string, identifier, milliseconds
from tailer.core.light_dataclass import light_dataclass

STOPPED_CONTEXTS: Final = frozenset({"abort", "incomplete"})
"""The contexts of calls that were charged when their answer was stopped."""


@light_dataclass(frozen=True, slots=True)
class Transaction:
    """One row of `transactions`; amounts as positive numbers, cost in USD, None where not stored. `key` is its
    `_id`."""

    message_id: str | None
    conversation_id: str | None
    user_id: str | None
    token_type: str
    context: str
    model: str | None
    tokens: int
    input_tokens: int | None
    write_tokens: int | None
    read_tokens: int | None
    cost: float | None
    rate: float | None
    created_milliseconds: int | None
    key: str = ""
    tenant_id: str | None = None


def read_transaction(document: Document) -> Transaction | None:
    """Read a row of `transactions`; None for a row that states no tokens (a refill, a broken row)."""
    get = document.get
    token_type = get("tokenType")
    raw = amount(get("rawAmount"))
    if token_type not in ("prompt", "completion") or raw is None:
        return None
    value = amount(get("tokenValue"))
    return Transaction(
        message_id=filled_string(get("messageId")),
        conversation_id=filled_string(get("conversationId")),
        user_id=identifier(get("user")),
        token_type=str(token_type),
        context=filled_string(get("context")) or "message",
        model=filled_string(get("model")),
        tokens=round(abs(raw)),
        input_tokens=_stored_tokens(get("inputTokens")),
        write_tokens=_stored_tokens(get("writeTokens")),
        read_tokens=_stored_tokens(get("readTokens")),
        cost=None if value is None else abs(value) / 1_000_000,
        rate=amount(get("rate")),
        created_milliseconds=milliseconds(get("createdAt")),
        key=identifier(get("_id")) or "",
        tenant_id=filled_string(get("tenantId")),
    )


def _stored_tokens(value: object) -> int | None:
    number = amount(value)
    return None if number is None else round(abs(number))
