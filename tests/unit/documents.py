"""Documents as LibreChat stores them, for tests of the core: made to order, taken from the recordings, or broken.

The shapes are those of the data contract: one builder for each kind of row, whose fields a test overrides or drops
(`MISSING`). `replay` puts the rows of a recording together as the daemon reads them back.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from typing import Any, Final, TypeAlias

from bson import ObjectId
from hypothesis import strategies as st

from tailer.core.identity import NO_PARENT, DocumentKey
from tailer.core.librechat.bson_values import filled_string, identifier, milliseconds
from tailer.core.librechat.conversations import Agent, Conversation, read_agent, read_conversation
from tailer.core.librechat.messages import Message, read_message
from tailer.core.librechat.transactions import Transaction, read_transaction
from tailer.core.policy.policies import Policies
from tailer.core.policy.users import UserNaming
from tailer.core.stream.hints import ChangeHint, Operation
from tailer.core.trace.bounds import Bounds
from tailer.core.trace.export import Exported, ExportOptions, export_turn
from tailer.core.trace.observations import Observation, ObservationType, Trace
from tailer.core.turn.assembly import make_draft, make_record
from tailer.core.turn.readback import Row, make_excerpt
from tailer.core.turn.selection import HistoryLimits, RowSelection, select_rows
from tailer.core.turn.transactions_by_time import assign_by_time
from tailer.core.turn.turns import TurnRecord, Wait
from tailer.demo.stage.recording import RecordedEvent
from tests.recordings import load

Document: TypeAlias = dict[str, Any]

NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
USER: Final = "6b041b93f1e16ab6e33e9f26"
CONVERSATION: Final = "3f2a5d0e-7c15-4d38-9a51-0f6f6f1c2b11"
QUESTION: Final = "11111111-0000-4000-8000-000000000001"
RESPONSE: Final = "22222222-0000-4000-8000-000000000002"
MISSING: Final = object()
"""As a field's value: the row does not have the field."""

_numbers = count(1)


def moment(seconds: float) -> datetime:
    """So many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def stamp(seconds: float) -> int:
    """The same as milliseconds since 1970."""
    found = milliseconds(moment(seconds))
    assert found is not None
    return found


def object_id(seconds: float) -> ObjectId:
    """An `_id` made so many seconds after noon."""
    return ObjectId(f"{int(moment(seconds).timestamp()):08x}{next(_numbers):016x}")


def _row(defaults: Document, fields: Mapping[str, object]) -> Document:
    return {name: value for name, value in {**defaults, **fields}.items() if value is not MISSING}


def user_row(at: float = 0, **fields: object) -> Document:
    """A question, stored `at` seconds after noon."""
    return _row(
        {
            "_id": object_id(at),
            "messageId": QUESTION,
            "conversationId": CONVERSATION,
            "parentMessageId": NO_PARENT,
            "user": USER,
            "isCreatedByUser": True,
            "sender": "User",
            "text": "What is the capital of France?",
            "tokenCount": 12,
            "endpoint": "openAI",
            "model": None,
            "unfinished": False,
            "error": False,
            "isTemporary": False,
            "expiredAt": None,
            "_meiliIndex": False,
            "__v": 0,
            "createdAt": moment(at),
            "updatedAt": moment(at),
        },
        fields,
    )


def response_row(at: float = 2, **fields: object) -> Document:
    """A complete response of the newest release without usage, stored `at` seconds after noon."""
    return _row(
        {
            "_id": object_id(at),
            "messageId": RESPONSE,
            "conversationId": CONVERSATION,
            "parentMessageId": QUESTION,
            "user": USER,
            "isCreatedByUser": False,
            "sender": "GPT-4o",
            "model": "gpt-4o",
            "endpoint": "openAI",
            "text": "",
            "content": [{"type": "text", "text": "Paris."}],
            "tokenCount": 210,
            "contextMeta": {"calibrationRatio": 1.02, "encoding": "o200k_base"},
            "attachments": [],
            "langfuseSampled": True,
            "langfuseDestinationIds": [],
            "unfinished": False,
            "error": False,
            "isTemporary": False,
            "expiredAt": None,
            "createdAt": moment(at),
            "updatedAt": moment(at),
        },
        fields,
    )


def old_response_row(at: float = 2, **fields: object) -> Document:
    """A complete response of a release before 0.8.5: no metadata, no sampling decision, no `isTemporary`."""
    newer = ("contextMeta", "langfuseSampled", "langfuseDestinationIds", "isTemporary", "expiredAt")
    return response_row(at, **{**dict.fromkeys(newer, MISSING), **fields})


def usage_metadata(
    input_tokens: int, output_tokens: int, *, write: int = 0, read: int = 0, **fields: object
) -> Document:
    """`metadata` of 0.8.7 and later."""
    usage = {"input": input_tokens, "output": output_tokens, "cacheWrite": write, "cacheRead": read, **fields}
    return {"usage": usage, "contextUsage": {"runId": RESPONSE}}


def tool_part(name: str = "get_weather_mcp_srv", **fields: object) -> Document:
    """A finished tool call."""
    call = {
        "id": "call_1",
        "type": "tool_call",
        "name": name,
        "args": '{"city":"Paris"}',
        "output": "18 degrees",
        "progress": 1,
    }
    return {"type": "tool_call", "tool_call": _row(call, fields)}


def prompt_row(tokens: int, **fields: object) -> Document:
    """A prompt transaction: amounts are stored negative, `tokenValue` in millionths of a dollar."""
    return _transaction_row("prompt", tokens, 2.5, fields)


def completion_row(tokens: int, **fields: object) -> Document:
    """A completion transaction."""
    return _transaction_row("completion", tokens, 10.0, fields)


def _transaction_row(token_type: str, tokens: int, rate: float, fields: Mapping[str, object]) -> Document:
    return _row(
        {
            "_id": object_id(1),
            "user": ObjectId(USER),
            "conversationId": CONVERSATION,
            "messageId": RESPONSE,
            "model": "gpt-4o",
            "context": "message",
            "tokenType": token_type,
            "rawAmount": -tokens,
            "rate": rate,
            "tokenValue": -tokens * rate,
            "createdAt": moment(1),
        },
        fields,
    )


def structured_prompt_row(input_tokens: int, *, write: int, read: int, **fields: object) -> Document:
    """A prompt transaction of a call with cache: the three amounts are negative too."""
    return prompt_row(
        input_tokens + write + read,
        **{"inputTokens": -input_tokens, "writeTokens": -write, "readTokens": -read, **fields},
    )


def conversation_row(**fields: object) -> Document:
    """A conversation of a plain model chat."""
    return _row(
        {
            "_id": object_id(0),
            "conversationId": CONVERSATION,
            "user": USER,
            "title": "Capital of France",
            "endpoint": "openAI",
            "model": "gpt-4o",
            "agent_id": "openAI__gpt-4o___GPT-4o",
            "messages": [],
            "tags": [],
            "temperature": 0.5,
        },
        fields,
    )


def agent_row(**fields: object) -> Document:
    """A saved agent."""
    return _row(
        {
            "_id": object_id(0),
            "id": "agent_iACv6m9mgXqVzt5kkBW0V",
            "name": "Weather clerk",
            "provider": "openAI",
            "model": "gpt-4o-mini",
            "instructions": "You know the weather.",
            "model_parameters": {"temperature": 0.1},
        },
        fields,
    )


def message(document: Mapping[str, object]) -> Message:
    """The row as the core reads it."""
    return read_message(DocumentKey(str(document["_id"])), document)


def transactions(*documents: Document) -> tuple[Transaction, ...]:
    """The rows as the core reads them."""
    return tuple(entry for document in documents if (entry := read_transaction(document)) is not None)


def conversation(document: Document) -> Conversation:
    """The row as the core reads it."""
    found = read_conversation(DocumentKey(str(document["_id"])), document)
    assert found is not None
    return found


def agent(document: Document) -> Agent:
    """The row as the core reads it."""
    found = read_agent(document)
    assert found is not None
    return found


def turn_record(
    response: Document | None, question: Document | None = None, *entries: Document, **fields: Any
) -> TurnRecord:
    """What is read back for a turn; `entries` are its transactions."""
    record = TurnRecord(
        response=None if response is None else message(response),
        question=None if question is None else message(question),
        transactions=transactions(*entries),
    )
    return replace(record, **fields)


def row(document: Mapping[str, Any]) -> Row:
    """The row without its content, as it is read first."""
    return Row(
        key=DocumentKey(str(document["_id"])),
        message_id=document["messageId"],
        conversation_id=document["conversationId"],
        parent_message_id=filled_string(document.get("parentMessageId")),
        user_id=identifier(document.get("user")),
        created_by_user=document.get("isCreatedByUser") is True,
        traced_natively=bool(document.get("langfuseDestinationIds")),
        created_milliseconds=milliseconds(document.get("createdAt")),
        stored_bytes=len(str(document)),
        refused=document.get("error") is True,
        model=filled_string(document.get("model")),
    )


def select(of: Row, chat: Mapping[str, Row], byte_limit: int = 100_000) -> RowSelection:
    """What is read for a row of a conversation whose rows are all known."""
    return select_rows(of, make_excerpt(list(chat.values()), complete=True), HistoryLimits(byte_limit))


def assemble(
    selection: RowSelection,
    messages: Mapping[DocumentKey, Message],
    chat: Conversation | None = None,
    entries: tuple[Transaction, ...] = (),
    *agents: Agent,
) -> TurnRecord | None:
    """The record of what was read, where no row of another conversation was looked at."""
    draft = make_draft(selection, messages, chat, entries)
    if draft is None:
        return None
    counted = draft.rows_to_count
    if counted:
        draft = draft.with_counts([messages[item.key].token_count for item in counted])
    return make_record(draft, messages, {found.agent_id: found for found in agents}, None)


def options(**fields: Any) -> ExportOptions:
    """Everything is exported as it is, unless a test decides otherwise."""
    everything = ExportOptions(
        bounds=Bounds(),
        tags=(),
        tag_facts=(),
        sample_rate=1.0,
        policies=Policies(),
        naming=UserNaming(),
        mask=None,
    )
    return replace(everything, **fields)


def export(record: TurnRecord, *, deadline_passed: bool = False, **fields: Any) -> Exported | Wait | str:
    """What becomes of a turn; `fields` are options."""
    anchor = record.response or record.question
    assert anchor is not None
    own = Row(
        key=anchor.key,
        message_id=anchor.message_id,
        conversation_id=anchor.conversation_id,
        parent_message_id=anchor.parent_message_id,
        user_id=anchor.user_id,
        created_by_user=anchor.created_by_user,
        traced_natively=bool(anchor.native_destinations),
        created_milliseconds=anchor.created_milliseconds,
        stored_bytes=0,
    )
    return export_turn(own, record, options(**fields), deadline_passed=deadline_passed)


def traces_of(record: TurnRecord, *, deadline_passed: bool = False, **fields: Any) -> tuple[Trace, ...]:
    """The traces of a turn that has some: its own first, then its title's."""
    made = export(record, deadline_passed=deadline_passed, **fields)
    assert isinstance(made, Exported), made
    return made.traces


def trace_of(record: TurnRecord, *, deadline_passed: bool = False, **fields: Any) -> Trace:
    """The trace of a turn that has one."""
    return traces_of(record, deadline_passed=deadline_passed, **fields)[0]


def observations(trace: Trace, kind: ObservationType) -> list[Observation]:
    """The observations of one type, in their order."""
    return [observation for observation in trace.observations if observation.type is kind]


@dataclass(frozen=True, slots=True)
class Replay:
    """A recording's rows of `messages` by `_id`, the record of each row's turn, and the hints, in their order.

    Every row stands as it stood last: a deleted one as it was before."""

    rows: Mapping[DocumentKey, Document]
    records: Mapping[DocumentKey, TurnRecord]
    hints: tuple[ChangeHint, ...]

    def record(self, message_id: str) -> TurnRecord:
        """The record of the turn of that row."""
        (key,) = (key for key, document in self.rows.items() if document["messageId"] == message_id)
        return self.records[key]


@cache
def replay(name: str) -> Replay:
    """What the daemon would read back from that recording."""
    rows: dict[str, dict[str, Document]] = defaultdict(dict)
    hints = []
    for event in load(name).events:
        key = str(event.document_key["_id"])
        if event.full_document is not None:
            rows[event.collection][key] = event.full_document
        if event.collection == "messages":
            hints.append(_hint(event, load(name).started_at + event.offset))
    stored = {DocumentKey(key): document for key, document in rows["messages"].items()}
    agents = [agent(document) for document in rows["agents"].values()]
    conversations = {
        found.conversation_id: found for found in map(conversation, rows["conversations"].values())
    }
    chats: dict[str, dict[str, Row]] = defaultdict(dict)
    for document in stored.values():
        chats[document["conversationId"]][document["messageId"]] = row(document)
    ledger: dict[str | None, list[Transaction]] = defaultdict(list)
    unnamed: dict[str | None, list[Transaction]] = defaultdict(list)
    for entry in transactions(*(rows["transactions"][key] for key in sorted(rows["transactions"]))):
        if entry.message_id is None:
            unnamed[entry.conversation_id].append(entry)
        else:
            ledger[entry.message_id].append(entry)
    for conversation_id, entries in unnamed.items():
        for message_id, found_entries in assign_by_time(entries, chats[conversation_id or ""]).items():
            ledger[message_id].extend(found_entries)
    records = {}
    for key, document in stored.items():
        record = assemble(
            select(row(document), chats[document["conversationId"]], 1_000_000),
            {other: message(found) for other, found in stored.items()},
            conversations.get(document["conversationId"]),
            tuple(ledger[document["messageId"]]),
            *agents,
        )
        assert record is not None
        records[key] = record
    return Replay(stored, records, tuple(hints))


def _hint(event: RecordedEvent, at: datetime) -> ChangeHint:
    whole = event.operation in ("insert", "replace")
    document = event.full_document or {}
    updated = event.update.updated_fields if event.update is not None else {}
    removed = event.update.removed_fields if event.update is not None else ()
    return ChangeHint(
        operation=Operation(event.operation),
        document_key=DocumentKey(str(event.document_key["_id"])),
        cluster_seconds=int(at.timestamp()),
        written_milliseconds=milliseconds(updated.get("updatedAt")) or milliseconds(at),
        changed=frozenset(name.split(".")[0] for name in (*updated, *removed)),
        message_id=document.get("messageId"),
        parent_message_id=document.get("parentMessageId"),
        created_by_user=document.get("isCreatedByUser") if whole else None,
    )


def change(
    key: str,
    operation: Operation = Operation.INSERT,
    *,
    written: int | None = None,
    changed: Iterable[str] = (),
    **fields: Any,
) -> ChangeHint:
    """A hint made to order; `written` in milliseconds."""
    hint = ChangeHint(
        operation=operation,
        document_key=DocumentKey(key),
        cluster_seconds=0,
        written_milliseconds=written,
        changed=frozenset(changed),
        message_id=None,
        parent_message_id=None,
        created_by_user=None,
    )
    return replace(hint, **fields)


_SPECIAL_CHARACTERS: Final = ("\ud800", "\udfff", "\0", "\n", '"', "\\", "é", "€", "😀")
ANY_TEXT: Final = st.lists(
    st.one_of(st.text(max_size=8), st.sampled_from(_SPECIAL_CHARACTERS)), max_size=6
).map("".join)
"""Text as MongoDB's drivers can hand it over: lone surrogates, NUL and characters of four bytes among it."""

_LEAVES: Final[st.SearchStrategy[Any]] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from((2**63 - 1, -(2**63), 10**30, 10**400)),
    st.floats(),
    ANY_TEXT,
    st.binary(max_size=4),
    st.datetimes(),
    st.just(NOON),
    st.just(ObjectId(USER)),
)
NAMES_IN_ROWS: Final = (
    "type", "text", "value", "think", "tool_call", "id", "name", "args", "output", "function", "arguments", "error",
    "steer", "summary", "content", "agent_update", "agentId", "approval", "runStepDurationMs", "runStepStatus",
    "inputValidationError", "code_interpreter", "outputs", "createdAt", "model",
)  # fmt: skip
VALUES: Final[st.SearchStrategy[Any]] = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(NAMES_IN_ROWS), st.text(max_size=4)), inner, max_size=5),
    ),
    max_leaves=10,
)
"""Anything a field may hold, and a little more."""


def nested(depth: int, innermost: object = "deep") -> object:
    """Lists and documents in each other, `depth` of each."""
    value = innermost
    for _ in range(depth):
        value = [{"text": value}]
    return value


PART_TYPES: Final = (
    "text", "think", "tool_call", "error", "steer", "summary", "agent_update", "image_file", "activity_label", "new",
)  # fmt: skip
_PARTS: Final[st.SearchStrategy[Any]] = st.one_of(
    st.none(),
    VALUES,
    st.builds(
        lambda kind, payload, rest: {**rest, "type": kind, kind: payload},
        st.sampled_from(PART_TYPES),
        VALUES,
        st.dictionaries(st.sampled_from(NAMES_IN_ROWS), VALUES, max_size=3),
    ),
    st.builds(
        lambda call: {"type": "tool_call", "tool_call": call},
        st.dictionaries(st.sampled_from(NAMES_IN_ROWS), VALUES, max_size=6),
    ),
)
CONTENTS: Final[st.SearchStrategy[Any]] = st.one_of(VALUES, st.lists(_PARTS, max_size=6))
"""A response's `content`: parts of every known type and of none, holes, and no array at all."""


def broken(document: Document, *, keep: Sequence[str] = ()) -> st.SearchStrategy[Document]:
    """The row with any of its fields missing or holding anything; those of `keep` stay sound."""
    fields = [name for name in document if name not in (*keep, "_id")]
    junk = {"content": CONTENTS, "metadata": st.one_of(VALUES, st.fixed_dictionaries({"usage": VALUES}))}

    def spoil(names: list[str]) -> st.SearchStrategy[Document]:
        replacements = {name: st.one_of(st.just(MISSING), junk.get(name, VALUES)) for name in names}
        return st.fixed_dictionaries(replacements).map(lambda new: _row(document, new))

    return st.lists(st.sampled_from(fields), unique=True, max_size=8).flatmap(spoil)
