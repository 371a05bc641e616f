"""Which rows a turn needs: its question, the question's ancestors, and what stands beside them.

A conversation is known whole, or by its newest rows only (`Excerpt`). The newest rows are enough for most turns, and
`is_settled` says for which: there the selection is the one that the whole conversation would give, but for the number
of ancestors that are left out.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tailer.core.identity import NO_PARENT, DocumentKey, inserted_seconds
from tailer.core.librechat.content import SummaryPart, TextPart, ToolCall
from tailer.core.librechat.messages import Message
from tailer.core.light_dataclass import light_dataclass
from tailer.core.turn.readback import Excerpt, Row

NO_LIMIT = 1 << 62
"""More bytes than there are."""


@light_dataclass(frozen=True, slots=True)
class RowSelection:
    """The rows to read for the turn of `row`: its question and the question's ancestors, newest first.

    `others` were inserted in the same second or next to it; `went_on`: the conversation has later rows; `answered_ids`
    are those of `questions` that got an answer and no refusal. `missing_ancestor` is where the chain of parents left
    the rows that are known; `is_full`: the limits admit no more ancestors. `is_cut`: it is not known how many more
    there are.
    """

    row: Row
    question: Row | None
    ancestors: tuple[Row, ...]
    ancestors_left_out: int
    responses: tuple[Row, ...]
    questions: tuple[Row, ...]
    others: tuple[Row, ...] = ()
    went_on: bool = False
    answered_ids: frozenset[str] = frozenset()
    missing_ancestor: str | None = None
    is_full: bool = False
    is_cut: bool = False

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows to read."""
        return (*self.own_rows, *self.ancestors)

    @property
    def own_rows(self) -> tuple[Row, ...]:
        """The rows to read of which everything counts: the turn's own, and its question."""
        return (self.row,) if self.question is None else (self.row, self.question)

    @property
    def keys(self) -> Iterator[DocumentKey]:
        """The `_id`s to read."""
        return (row.key for row in self.rows)

    @property
    def stored_bytes(self) -> int:
        """The most that is read for this turn."""
        return sum(row.stored_bytes for row in self.rows)


@light_dataclass(frozen=True, slots=True)
class HistoryLimits:
    """How much history is read: stored bytes, and bytes of text as far as `text_of` knows the text of a row.

    `text_of` gives a number that the text of the row is never smaller than, and None for a summary, which replaces what
    came before it. One row passes each limit.
    """

    stored_bytes: int
    text_bytes: int = NO_LIMIT
    text_of: Callable[[Row], int | None] = lambda _: 0


def select_rows(row: Row, excerpt: Excerpt, limits: HistoryLimits) -> RowSelection:
    """Choose what to read for a response (or a question) from what is known of its conversation."""
    known, children = excerpt.rows, excerpt.children
    own_row = known.get(row.message_id)
    if own_row is not None and own_row.key == row.key:
        # A row of the agents API has its parent from the excerpt.
        row = own_row
    question = row if row.created_by_user else known.get(row.parent_message_id or "")
    if question is not None and not question.created_by_user:
        question = None
    first_parent = question.parent_message_id if question is not None else None
    # A row is not its own ancestor, whatever a broken chain of parents says.
    own = {row.message_id} if question is None else {row.message_id, question.message_id}
    ancestors = select_ancestors(first_parent, known, limits, beside=own)
    responses: tuple[Row, ...] = ()
    questions: tuple[Row, ...] = ()
    if question is not None:
        responses = tuple(item for item in children.get(question.message_id, ()) if not item.created_by_user)
        questions = tuple(item for item in children.get(first_parent, ()) if item.created_by_user)
    return RowSelection(
        row=row,
        question=question,
        ancestors=ancestors.rows,
        ancestors_left_out=ancestors.left_out,
        responses=responses,
        questions=questions,
        others=_inserted_with(row, known),
        went_on=row.created_milliseconds is not None
        and excerpt.newest_milliseconds > row.created_milliseconds,
        answered_ids=frozenset(
            item.message_id
            for item in questions
            if any(
                not answer.created_by_user and not answer.refused
                for answer in children.get(item.message_id, ())
            )
        ),
        missing_ancestor=ancestors.missing,
        is_full=ancestors.is_full,
        is_cut=ancestors.missing is not None and not excerpt.complete,
    )


def is_settled(selection: RowSelection, excerpt: Excerpt) -> bool:
    """Whether the row is still there and the whole conversation would give the same selection, but for the number of
    ancestors left out.

    What answers a row is newer than the row, or older by no more than the excerpt's slack. So it is among the newest
    rows together with it, and what stands beside a turn hangs on its question or on the question's parent.
    """
    row, question = selection.row, selection.question
    own = excerpt.rows.get(row.message_id)
    if own is None or own.key != row.key or not excerpt.is_plain:
        return False
    if excerpt.complete:
        return True
    if question is None:
        # An answer without a parent has no question; one whose parent is not here may have one.
        parent = row.parent_message_id
        return excerpt.reaches_behind(row) and (parent in (None, NO_PARENT) or parent in excerpt.rows)
    parent = question.parent_message_id
    if parent is None or not excerpt.reaches_behind(excerpt.rows.get(parent)):
        return False
    return selection.missing_ancestor is None or selection.is_full


def began_seconds(selection: RowSelection) -> int:
    """A second before which nothing of a turn was stored, by LibreChat's clock and by MongoDB's; 0 where that is not
    known, because the question is not."""
    question = selection.question
    if question is None:
        return 0
    times: list[int] = []
    for row in (selection.row, question):
        if row.created_milliseconds is None:
            return 0
        times += [row.created_milliseconds // 1000, inserted_seconds(row.key) or 0]
    return min(times)


def _inserted_with(row: Row, conversation: Mapping[str, Row]) -> tuple[Row, ...]:
    second = inserted_seconds(row.key)
    if second is None:
        return ()
    near = {f"{second + between:08x}" for between in (-1, 0, 1)}
    return tuple(item for item in conversation.values() if item.key[:8] in near and item.key != row.key)


@light_dataclass(frozen=True, slots=True)
class Ancestors:
    """A question's ancestors to read, newest first, how many further ones are known and stay unread, and the parent
    that is not known, if the chain leads there."""

    rows: tuple[Row, ...]
    left_out: int
    missing: str | None
    is_full: bool


def select_ancestors(
    first_parent: str | None,
    known: Mapping[str, Row],
    limits: HistoryLimits,
    *,
    beside: Iterable[str] = (),
) -> Ancestors:
    """Follow the chain of parents from `first_parent`, not through the rows `beside`.

    It ends at the root, at a missing parent, at a cycle and at a summary. Rows beyond the limits are counted and not
    read.
    """
    chosen: list[Row] = []
    seen = set(beside)
    stored, shown, walked = 0, 0, 0
    is_full = False
    parent = first_parent
    while parent is not None and parent != NO_PARENT and parent not in seen:
        row = known.get(parent)
        if row is None:
            return Ancestors(tuple(chosen), walked - len(chosen), parent, is_full)
        seen.add(parent)
        walked += 1
        if not is_full:
            chosen.append(row)
            stored += row.stored_bytes
            text_bytes = limits.text_of(row)
            if text_bytes is None:
                return Ancestors(tuple(chosen), 0, None, is_full=True)
            shown += text_bytes
            is_full = stored > limits.stored_bytes or shown > limits.text_bytes
        parent = row.parent_message_id
    return Ancestors(tuple(chosen), walked - len(chosen), None, is_full)


def least_text_bytes(message: Message) -> int | None:
    """A number that the text of a row in a prompt is never smaller than, without making the prompt; None for a
    summary."""
    if message.created_by_user or not message.parts:
        return len(message.text or "")
    size = 0
    for part in message.parts:
        if isinstance(part, SummaryPart) and part.text:
            return None
        if isinstance(part, TextPart):
            size += len(part.text)
        elif isinstance(part, ToolCall):
            size += len(part.output or "")
    return size


def reaches_into_history(message: Message) -> bool:
    """Whether an answer's own summary names the row of the history up to which it speaks: that row must be found."""
    return any(isinstance(part, SummaryPart) and part.boundary_id for part in message.parts)


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
