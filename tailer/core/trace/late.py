"""What LibreChat writes into a turn after its trace was sent: tool results, edits of single parts, files, late billing.

A sent span is never sent again. Late facts become observations of their own in the same trace, at the end of its root,
so that they do not stretch its latency; the time of writing is in the metadata. Marks tell what was sent, so a repeated
change event finds nothing new.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

from tailer.core.identity import observation_id
from tailer.core.librechat.content import ReasoningPart, SummaryPart, ToolCall
from tailer.core.librechat.messages import Message, ReportedUsage
from tailer.core.librechat.transactions import Transaction
from tailer.core.light_dataclass import light_dataclass
from tailer.core.trace.content_policy import ANY_HAND_OFF, MakeMasker, is_hand_off
from tailer.core.trace.followup import (
    Edit,
    SentTurn,
    TextMark,
    is_lengthened,
    make_piece,
    mark_text,
    shown_text,
    written_out,
)
from tailer.core.trace.generations import Frame, build_generation
from tailer.core.trace.observations import Observation, ObservationType, Trace
from tailer.core.turn.calls import ModelCall
from tailer.core.turn.usage import (
    ANSWERING_CONTEXTS,
    TITLE_CONTEXT,
    Usage,
    UsageSource,
    is_last_run,
    resolve_spending,
)

PartMarks: TypeAlias = tuple[tuple[str, TextMark], ...]
"""What is remembered of a turn's parts besides its answer: a key for each, and the mark of its text."""

_MOST_PARTS = 200
"""Parts remembered of one turn: more than any turn of real agents has, and a few kilobytes in its record."""
_MOST_TRANSACTIONS = 400
_CHARGED_BEFORE_MILLISECONDS = 3_000
"""An answer that goes on is charged, and then stored at once."""


class LatePart(StrEnum):
    """Which part of a turn was written late."""

    REASONING = "reasoning"
    TOOL = "tool"
    SUMMARY = "summary"
    FILE = "file"


@light_dataclass(frozen=True, slots=True)
class LateMarks:
    """How a turn's record is updated with sent late facts; None for a kind that did not change."""

    number: int
    parts: PartMarks | None
    transactions: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class LateNews:
    """The late facts of one turn: the parts that differ from what was sent, and the transactions that came after.
    `continued`: what a model wrote for them at the end of the answer."""

    parts: tuple["_NamedPart", ...]
    transactions: tuple[Transaction, ...]
    marks: LateMarks
    written_milliseconds: int
    continued: str | None = None


@light_dataclass(frozen=True, slots=True)
class _NamedPart:
    key: str
    kind: LatePart
    name: str
    text: str
    call_id: str = ""
    before: TextMark | None = None


def mark_parts(message: Message) -> PartMarks:
    """The marks of all parts that LibreChat may still write to after the answer is complete."""
    return tuple([(part.key, mark_text(part.text)) for part in _named_parts(message)])


def mark_transactions(transactions: Sequence[Transaction]) -> tuple[str, ...]:
    """The `_id`s of the transactions that a trace counts; any other one that comes later is late."""
    return tuple(sorted([entry.key for entry in transactions if entry.key])[:_MOST_TRANSACTIONS])


def find_late_transactions(sent: SentTurn, transactions: Sequence[Transaction]) -> tuple[Transaction, ...]:
    """The ledger rows of a turn that its trace could not count, in the order given.

    A title has a trace of its own. Where the numbers came from the answer's own report (`metadata.usage`, 0.8.7 and
    later), rows of the answer are in it, however late LibreChat wrote them.
    """
    if sent.transactions is None or len(sent.transactions) >= _MOST_TRANSACTIONS:
        return ()
    counted = frozenset(sent.transactions)
    reported = sent.usage_source == UsageSource.REPORTED
    return tuple(
        entry
        for entry in transactions
        if entry.key
        and entry.key not in counted
        and entry.context != TITLE_CONTEXT
        and not (reported and entry.context in ANSWERING_CONTEXTS)
    )


def is_late(sent: SentTurn, transaction: Transaction) -> bool:
    """Whether a ledger row adds tokens to a turn that was sent without it."""
    return bool(find_late_transactions(sent, (transaction,))) and resolve_spending((transaction,)) is not None


def find_continuation(sent: SentTurn, edit: Edit, unnamed: Sequence[Transaction]) -> tuple[Transaction, ...]:
    """The ledger rows that say that a model, and no person, made an answer longer.

    Until 0.7.8 "Continue" writes into the row of the answer, and the ledger names no message: what was charged right
    before the row was stored is for it.
    """
    if not is_lengthened(edit):
        return ()
    charged = [
        entry
        for entry in find_late_transactions(sent, unnamed)
        if entry.message_id is None and entry.context in ANSWERING_CONTEXTS and _is_charged_for(edit, entry)
    ]
    return tuple(charged) if resolve_spending(charged) is not None else ()


def find_second_run(
    sent: SentTurn, edit: Edit, report: ReportedUsage | None, ledger: Sequence[Transaction]
) -> tuple[Transaction, ...]:
    """The ledger rows of a run that wrote an answer anew into its row, as "Continue" over the API does since 0.7.9.

    LibreChat then reports the later run alone (0.8.7): the rows of the sent trace are not what it tells, those that
    came since are. Before it reported, rows name their message (0.8.3) and were written right before the longer answer.
    """
    if sent.transactions is None or len(sent.transactions) >= _MOST_TRANSACTIONS:
        return ()
    counted = frozenset(sent.transactions)
    answering = [entry for entry in ledger if entry.key and entry.context in ANSWERING_CONTEXTS]
    later = tuple([entry for entry in answering if entry.key not in counted])
    if report is None:
        written = is_lengthened(edit) and any(_is_charged_for(edit, entry) for entry in later)
        return later if written else ()
    earlier = [entry for entry in answering if entry.key in counted]
    # Without rows of its own the report may have been that of the sent trace.
    is_new = bool(earlier) and is_last_run(report, later) and not is_last_run(report, earlier)
    return later if is_new else ()


def _is_charged_for(edit: Edit, entry: Transaction) -> bool:
    since = edit.written_milliseconds - _CHARGED_BEFORE_MILLISECONDS
    return since <= (entry.created_milliseconds or 0) <= edit.written_milliseconds


def find_news(
    sent: SentTurn,
    message: Message | None,
    transactions: Sequence[Transaction],
    written_milliseconds: int,
    *,
    continued: Edit | None = None,
    charged: Sequence[Transaction] = (),
) -> LateNews | None:
    """What differs from what was sent, None if nothing does; without a message, which was deleted, the ledger alone.
    `continued` shows what a model wrote, and `charged` what was charged for that.

    A record of an earlier release has no marks. Then nothing counts as late, and nothing is repeated.
    """
    parts: tuple[_NamedPart, ...] = ()
    if sent.parts is not None and message is not None:
        known = dict(_told_apart(sent.parts))
        parts = tuple(
            replace(part, before=known.get(part.key))
            for part in _named_parts(message)
            if known.get(part.key) != mark_text(part.text)
        )
    own = {entry.key for entry in charged}
    others = [entry for entry in transactions if entry.key not in own]
    late = (*find_late_transactions(sent, others), *charged)
    if not parts and not late:
        return None
    marks = LateMarks(
        number=sent.edits,
        parts=mark_parts(message) if parts and message is not None else None,
        transactions=tuple(sorted({*(sent.transactions or ()), *(entry.key for entry in late)}))
        if late
        else None,
    )
    more = None if continued is None else continued.text
    if continued is not None and is_lengthened(continued):
        more = continued.text[continued.before.characters :]
    return LateNews(parts, late, marks, written_milliseconds, more)


def build_late_trace(sent: SentTurn, news: LateNews, mask: MakeMasker | None) -> Trace | None:
    """The observations of late facts as a piece of the turn's trace; None if they say nothing (rows without tokens)."""
    number, at = news.marks.number, sent.end_milliseconds
    observations = [
        _show_part(sent, part, number * _MOST_PARTS + index, news.written_milliseconds, mask)
        for index, part in enumerate(news.parts)
    ]
    usage = resolve_spending(news.transactions)
    calls = _uncounted(sent, usage) if usage is not None else []
    last = max(
        (index for index, call in enumerate(calls) if call.context in ANSWERING_CONTEXTS), default=None
    )
    for index, call in enumerate(calls):
        frame = Frame(
            id=observation_id(sent.message_id, "late-generation", number * _MOST_TRANSACTIONS + index),
            parent_id=observation_id(sent.message_id, "root"),
            name=call.context if call.context != "message" else call.model or "model call",
            start_milliseconds=at,
            end_milliseconds=at,
        )
        billed = max((entry.created_milliseconds or 0 for entry in news.transactions), default=0)
        metadata = {
            "late": "true",
            "timing": "not stored",
            "context": call.context,
            "billed_at": written_out(billed),
        }
        assert usage is not None  # noqa: S101 - there is a call
        generation = build_generation(frame, call, usage, model=None, metadata=metadata)
        if index == last:
            generation = replace(generation, output=shown_text(news.continued, sent, mask))
        observations.append(generation)
    if not observations:
        return None
    return make_piece(sent, tuple(observations), f"late:{number}")


def _uncounted(sent: SentTurn, usage: Usage) -> list[ModelCall]:
    """The calls of late rows without the output tokens that a trace has already: those that the answer itself stored
    (`tokenCount`). Their cost is new, also where nothing else of the call is."""
    if sent.usage_source != UsageSource.OUTPUT_ONLY:
        return list(usage.calls)
    calls = [_without_output(call) if call.context in ANSWERING_CONTEXTS else call for call in usage.calls]
    return [call for call in calls if call.tokens is not None or call.cost is not None]


def _without_output(call: ModelCall) -> ModelCall:
    tokens = call.tokens
    if tokens is None or (tokens.input is None and not tokens.cache_read and not tokens.cache_write):
        return replace(call, tokens=None)
    return replace(call, tokens=replace(tokens, output=None))


def _told_apart(marks: PartMarks) -> Iterator[tuple[str, TextMark]]:
    """The marks with a key for each: the first records have one key for all calls that share an id."""
    seen: dict[str, int] = {}
    for key, mark in marks:
        number = seen[key] = seen.get(key, 0) + 1
        yield key if number == 1 else f"{key}:{number}", mark


def _named_parts(message: Message) -> Iterator[_NamedPart]:
    numbers: dict[str, int] = {}
    for part in message.parts[:_MOST_PARTS]:
        match part:
            case ReasoningPart(text):
                kind, name = LatePart.REASONING, "reasoning"
            case SummaryPart(text):
                kind, name = LatePart.SUMMARY, "summary"
            case ToolCall(call_id=call_id, name=name, output=output):
                tool = numbers["tool"] = numbers.get("tool", 0) + 1
                call = call_id or str(tool)
                key = f"tool:{call}"
                # Some providers number their calls anew in each response, so an answer may have an id several times.
                repeats = numbers[key] = numbers.get(key, 0) + 1
                if output:
                    key = key if repeats == 1 else f"{key}:{repeats}"
                    yield _NamedPart(key, LatePart.TOOL, name, output, call)
                continue
            case _:
                continue
        number = numbers[name] = numbers.get(name, 0) + 1
        yield _NamedPart(f"{kind.value}:{number}", kind, name, text)
    for file in message.files[:_MOST_PARTS]:
        label = file.name or file.file_id or "unnamed"
        yield _NamedPart(f"file:{file.file_id or label}", LatePart.FILE, label, label)


def _show_part(
    sent: SentTurn, part: _NamedPart, index: int, written_milliseconds: int, mask: MakeMasker | None
) -> Observation:
    """A tool's result and a file are named as such; reasoning and summaries only change where a person edits them."""
    metadata = {
        "late": "true",
        "written_at": written_out(written_milliseconds),
        "new_characters": str(len(part.text)),
    }
    if part.before is not None:
        metadata["old_characters"] = str(part.before.characters)
    if part.kind is LatePart.TOOL:
        name = "tool-result"
        tool = (shown_text(part.name, sent, mask) or ANY_HAND_OFF) if is_hand_off(part.name) else part.name
        metadata |= {"tool": tool, "tool_call_id": part.call_id}
    elif part.kind is LatePart.FILE:
        name = "file"
    else:
        name = "edit"
        metadata["edited"] = part.kind.value
    return Observation(
        id=observation_id(sent.message_id, "late", index),
        parent_id=observation_id(sent.message_id, "root"),
        type=ObservationType.EVENT,
        name=name,
        start_milliseconds=sent.end_milliseconds,
        end_milliseconds=sent.end_milliseconds,
        output=shown_text(part.text, sent, mask),
        metadata=metadata,
    )
