"""Whether LibreChat charged its own count of a prompt, because the provider told none (until 0.8.5).

Then the prompt is the `tokenCount` of every message that was sent, and 3 for the beginning of the answer. Where the
provider told its count, LibreChat sets the `tokenCount` of the question so that the sum of all is that count. So a
difference of exactly 3 tells its own count; instructions, which no row counts, hide it.
"""

from collections.abc import Sequence

from tailer.core.librechat.messages import Message
from tailer.core.librechat.transactions import Transaction

_BEGINNING_OF_ANSWER = 3


def may_be_own_count(
    response: Message, question: Message | None, transactions: Sequence[Transaction]
) -> bool:
    """Whether the counts of the messages before the question can tell: the turn has a single plain prompt."""
    if response.says_temporary or question is None or question.token_count is None:
        return False
    return _only_prompt(transactions) is not None


def is_own_count(transactions: Sequence[Transaction], context_tokens: int | None) -> bool:
    """Whether the only prompt is LibreChat's own count; `context_tokens` is the `tokenCount` of the question and all
    that came before it, None if that is not known."""
    return context_tokens is not None and _only_prompt(transactions) == context_tokens + _BEGINNING_OF_ANSWER


def _only_prompt(transactions: Sequence[Transaction]) -> int | None:
    prompts = [row for row in transactions if row.token_type == "prompt" and row.context == "message"]
    if len(prompts) != 1 or prompts[0].input_tokens is not None:
        return None
    return prompts[0].tokens
