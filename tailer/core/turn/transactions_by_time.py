"""Transactions that name no message (before 0.8.3, and always for assistants), assigned to turns by model and time.

A turn's transactions are written between its question and some seconds after its response. If two turns of one
conversation are possible, a turn with another model is skipped, and then the nearer response wins. What was written
since a question that has no answer yet is left to that answer.

The transactions of an assistant's answer are written after it: when the next question was asked meanwhile, too.

Until 0.7.8 a call that was stopped before it wrote anything goes on, and is charged when it ends: by then the next turn
may have ended too. It is known by its prompt, which was charged with the same tokens when it was stopped.

A row that is stored while its answer is still written keeps the time of its first save (a closed tab in 0.8.2, answers
in the making before). What is charged when such an answer ends is too late for it, and the answer has nothing else.

A title is made of the first answer to the first question, and nothing bounds how long that takes: the next turn may
have ended by then.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tailer.core.identity import NO_PARENT
from tailer.core.librechat.agent_ids import ASSISTANT_PREFIX, SAVED_PREFIXES
from tailer.core.librechat.messages import Message
from tailer.core.librechat.transactions import STOPPED_CONTEXTS, Transaction
from tailer.core.turn.readback import Row
from tailer.core.turn.usage import ANSWERING_CONTEXTS, TITLE_CONTEXT

_BEFORE_QUESTION_MILLISECONDS = 1_000
_AFTER_RESPONSE_MILLISECONDS = 10_000
_LONGEST_ANSWER_MILLISECONDS = 3_600_000


@dataclass(frozen=True, slots=True)
class _Window:
    message_id: str
    model: str | None
    opens: int
    response: int
    is_first: bool
    question_id: str | None
    refused: bool

    def distance(self, entry: Transaction) -> tuple[bool, bool, int, str] | None:
        """How far a transaction is from the response, None if its time lies outside the turn."""
        at = entry.created_milliseconds
        if at is None or not self.opens <= at <= self.response + _AFTER_RESPONSE_MILLISECONDS:
            return None
        too_early = at < self.response and _is_assistant(self.model)
        return self.names_another_model(entry), too_early, abs(at - self.response), self.message_id

    def names_another_model(self, entry: Transaction) -> bool:
        """Whether the models agree. Titles, labels and summaries use models of their own, and a saved agent's row names
        no model."""
        if self.model is None or self.model.startswith(SAVED_PREFIXES):
            return False
        return entry.context in ANSWERING_CONTEXTS and entry.model not in (None, self.model)


def assign_by_time(
    transactions: Iterable[Transaction], conversation: Mapping[str, Row]
) -> Mapping[str, Sequence[Transaction]]:
    """Transactions by the message id of the response to which they belong. What fits no turn is left out.

    `conversation` holds the rows of one conversation by message id.
    """
    transactions, windows = list(transactions), list(_windows(conversation))
    pending = _pending_since(conversation)
    stopped = _StoppedCalls(windows)
    assigned: dict[str, list[Transaction]] = defaultdict(list)
    left: list[Transaction] = []
    for entry in transactions:
        if _belongs_to_pending(entry, pending):
            continue
        if entry.context == TITLE_CONTEXT:
            message_id = _titled_by(entry, windows)
        else:
            distances = (window.distance(entry) for window in windows)
            nearest = min((distance for distance in distances if distance is not None), default=None)
            message_id = stopped.settle(entry, None if nearest is None else nearest[-1])
        if message_id is not None:
            assigned[message_id].append(entry)
        elif entry.created_milliseconds is not None and entry.context != TITLE_CONTEXT:
            left.append(entry)
    for message_id, entries in _charged_at_the_end(left, windows, conversation).items() if left else ():
        if not any(entry.context in ANSWERING_CONTEXTS for entry in assigned.get(message_id, ())):
            assigned[message_id] += entries
            # In the order written again.
            assigned[message_id].sort(key=transactions.index)
    return assigned


def until_saved(response: Message, entries: tuple[Transaction, ...]) -> tuple[Transaction, ...]:
    """The transactions of a response without calls that name no message and were written long after its last save. A
    stopped call is charged when it ends, and that saves nothing."""
    if any(entry.context in STOPPED_CONTEXTS for entry in entries):
        return entries
    saved = max(response.created_milliseconds or 0, response.updated_milliseconds or 0)
    last = saved + _AFTER_RESPONSE_MILLISECONDS
    return tuple(
        entry
        for entry in entries
        if entry.message_id is not None
        or entry.context not in ANSWERING_CONTEXTS
        or (entry.created_milliseconds or 0) <= last
    )


def _charged_at_the_end(
    left: Iterable[Transaction], windows: Sequence[_Window], conversation: Mapping[str, Row]
) -> Mapping[str, Sequence[Transaction]]:
    """What was charged after the first save of a response and before anything else was stored in the conversation, if a
    call that answers is among it."""
    rows = sorted(
        (row.created_milliseconds, row.message_id)
        for row in conversation.values()
        if row.created_milliseconds
    )
    times = [at for at, _ in rows]
    responses = {window.message_id: window for window in windows if not window.refused}
    found: dict[str, list[Transaction]] = defaultdict(list)
    for entry in left:
        at = entry.created_milliseconds or 0
        place = bisect_left(times, at) - 1
        if place < 0 or (place > 0 and times[place - 1] == times[place]):
            continue
        window = responses.get(rows[place][1])
        if window is None or at - window.response > _LONGEST_ANSWER_MILLISECONDS:
            continue
        if not window.names_another_model(entry):
            found[window.message_id].append(entry)
    return {
        message_id: entries
        for message_id, entries in found.items()
        if any(entry.context in ANSWERING_CONTEXTS for entry in entries)
    }


class _StoppedCalls:
    """The prompts of stopped calls, in the order of the ledger, and the responses whose calls were stopped."""

    def __init__(self, windows: Sequence[_Window]) -> None:
        self._questions = {window.message_id: window.question_id for window in windows}
        self._prompts: dict[tuple[str | None, int], str] = {}
        self._ended: tuple[str | None, str] | None = None

    def settle(self, entry: Transaction, nearest: str | None) -> str | None:
        """The response of an entry, which is `nearest` unless it is what a stopped call was charged when it ended."""
        if nearest is not None and entry.context in STOPPED_CONTEXTS and entry.token_type == "prompt":
            self._prompts[entry.model, entry.tokens] = nearest
        elif self._prompts and entry.context == "message":
            if entry.token_type == "prompt":
                stopped = self._prompts.get((entry.model, entry.tokens))
                # An answer that was generated anew has a prompt of as many tokens.
                is_other = self._questions.get(nearest or "") != self._questions.get(stopped or "")
                self._ended = None if stopped is None or not is_other else (entry.model, stopped)
                return stopped if self._ended is not None else nearest
            if self._ended is not None and self._ended[0] == entry.model:
                message_id, self._ended = self._ended[1], None
                return message_id
        return nearest


def _titled_by(entry: Transaction, windows: Iterable[_Window]) -> str | None:
    """The response from which a title was made, None if it is not known.

    Until 0.8.1 two models may answer the first question at once, and LibreChat has a title made of each answer, by the
    model that wrote it if no other is set for titles.
    """
    at = entry.created_milliseconds
    possible = [window for window in windows if window.is_first and at is not None and window.opens <= at]
    if not possible:
        return None
    same_model = [window for window in possible if window.model == entry.model] or possible
    if len({window.model for window in same_model}) == 1:
        return min((window.response, window.message_id) for window in same_model)[1]
    assert at is not None  # noqa: S101 - without a time nothing is possible
    return min((abs(at - window.response), window.message_id) for window in same_model)[1]


def _is_assistant(model: str | None) -> bool:
    return model is not None and model.startswith(ASSISTANT_PREFIX)


def _pending_since(conversation: Mapping[str, Row]) -> int | None:
    """When the newest question was asked, if no answer was stored after it: its transactions come before its answer,
    except those of an assistant."""
    asked = [
        row.created_milliseconds
        for row in conversation.values()
        if row.created_by_user and not _is_assistant(row.model)
    ]
    answered = [row.created_milliseconds for row in conversation.values() if not row.created_by_user]
    newest = max((at for at in asked if at is not None), default=None)
    if newest is None or any(at is not None and at >= newest for at in answered):
        return None
    return newest


def _belongs_to_pending(entry: Transaction, pending: int | None) -> bool:
    """Titles, labels and summaries of the turn before may come after the next question."""
    at = entry.created_milliseconds
    return pending is not None and at is not None and at >= pending and entry.context in ANSWERING_CONTEXTS


def _windows(conversation: Mapping[str, Row]) -> Iterable[_Window]:
    for row in conversation.values():
        if row.created_by_user or row.created_milliseconds is None:
            continue
        question = conversation.get(row.parent_message_id or "")
        asked = question.created_milliseconds if question is not None else None
        opens = (asked if asked is not None else row.created_milliseconds) - _BEFORE_QUESTION_MILLISECONDS
        # Of an answer whose question was deleted it is not known what came before.
        is_first = question is None or question.parent_message_id in (None, NO_PARENT)
        yield _Window(
            row.message_id,
            row.model,
            opens,
            row.created_milliseconds,
            is_first,
            row.parent_message_id,
            row.refused,
        )
