"""Reads what the turns of a round need, in one job on the driver's thread where nothing is large.

A turn's own row, its question, the history and the alternatives come with the newest rows of its conversation. Where
those do not tell everything for certain (an old turn, a chain that is out of order), all rows of the conversation are
read without their content, and then the content of those that are needed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bson import ObjectId

from tailer.core.identity import DocumentKey
from tailer.core.librechat.conversations import Agent, Conversation, read_agent, read_conversation
from tailer.core.librechat.messages import Message
from tailer.core.librechat.transactions import Transaction
from tailer.core.policy.users import User
from tailer.core.turn.assembly import Draft, make_draft, make_record
from tailer.core.turn.readback import Excerpt, Owner, Row, make_excerpt, owner_of
from tailer.core.turn.selection import (
    HistoryLimits,
    RowSelection,
    group_selections,
    is_settled,
    least_text_bytes,
    reaches_into_history,
    select_rows,
)
from tailer.core.turn.turns import TurnRecord
from tailer.mongo.conversation_pages import PAGE_ROWS, ConversationPages, StoredRow
from tailer.mongo.document_keys import from_key, to_key
from tailer.mongo.message_rows import CONTENT_FIELDS, HISTORY_FIELDS, ROW_FIELDS, SMALL_BYTES
from tailer.mongo.reading import Reading
from tailer.mongo.transactions import read_transactions

_MOST_PAGES: Final = 3
"""Pages of one conversation, before it is read in the other way."""
_SHORT_SHARE: Final = 4
"""Conversations are read together again while at least one in so many is short."""
_NEARBY_SECONDS: Final = 3_600
_NEARBY_ROWS: Final = 30
"""How far around a row others are looked at, and how many each way, where only they can tell what it is."""

Records = Sequence[tuple[Row, TurnRecord | None]]
Group = Sequence[RowSelection]


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be read for the turns of one conversation, and the rows for which the excerpt does not tell enough."""

    excerpt: Excerpt
    settled: Sequence[RowSelection]
    odd: Sequence[Row]


@dataclass(slots=True)
class Found:
    """What a job has read so far: what is known of conversations, whole messages, messages as a history shows them, and
    what else is to be read."""

    excerpts: dict[Owner, Excerpt] = field(default_factory=dict)
    messages: dict[DocumentKey, Message] = field(default_factory=dict)
    earlier: dict[DocumentKey, Message] = field(default_factory=dict)
    selections: list[RowSelection] = field(default_factory=list)
    stored_bytes: int = 0

    def add(self, owner: Owner, choice: Choice) -> Sequence[Row]:
        """Keep a choice; gives its odd rows."""
        self.excerpts[owner] = choice.excerpt
        self.selections += choice.settled
        rows = {row.key: row.stored_bytes for selection in choice.settled for row in selection.rows}
        self.stored_bytes += sum(rows.values())
        return choice.odd


@dataclass(frozen=True, slots=True)
class Begun:
    """The records of the first group, the groups that follow it with what was read for them, and rows that were not
    looked at."""

    records: Records
    later: Sequence[Group]
    found: Found
    unread: Sequence[Row]


class TurnReading:
    """The jobs. `history_bytes` is how much text of earlier rows a trace shows, `stored_bytes` how much of them is read
    at most, `group_bytes` how much is in memory at once."""

    def __init__(self, *, history_bytes: int, stored_bytes: int, group_bytes: int) -> None:
        self._history_bytes = history_bytes
        self._stored_bytes = stored_bytes
        self._group_bytes = group_bytes
        self._pages = ConversationPages()

    def begin(self, rows: Sequence[Row], users: Mapping[str, User], reading: Reading) -> Begun:
        """Choose what to read for rows, which come in the order of their conversations, and read the first group."""
        found = Found()
        large = [row.key for row in rows if row.stored_bytes >= SMALL_BYTES]
        found.messages.update(read_messages(reading, large, CONTENT_FIELDS))
        by_owner: dict[Owner, list[Row]] = defaultdict(list)
        for row in rows:
            by_owner[owner_of(row)].append(row)
        odd = self._choose_together(reading, found, by_owner)
        unread: list[Row] = []
        for owner, own in by_owner.items():
            if owner in found.excerpts:
                continue
            if found.stored_bytes > self._group_bytes:
                unread += own
            else:
                odd += found.add(owner, self._choose_from_pages(reading, found, owner, own))
        if odd:
            self._choose_from_all(reading, found, odd)
        groups = list(group_selections(found.selections, byte_limit=self._group_bytes))
        records = self.finish(groups[0], found, users, reading) if groups else ()
        return Begun(records, groups[1:], found, unread)

    def finish(self, group: Group, found: Found, users: Mapping[str, User], reading: Reading) -> Records:
        """Read what is missing for a group, and make its records."""
        own = {selection.row.key for selection in group}
        own |= {selection.question.key for selection in group if selection.question is not None}
        earlier = {row.key for selection in group for row in selection.ancestors} - own
        messages = {
            **found.earlier,
            **_read_earlier(reading, earlier - found.messages.keys() - found.earlier.keys()),
            **found.messages,
            **read_messages(reading, own - found.messages.keys(), CONTENT_FIELDS),
        }
        conversations = _read_conversations(
            reading, list({selection.row.conversation_id for selection in group})
        )
        transactions = read_transactions(reading, group, found.excerpts)
        drafts = [
            self._make_draft(
                reading,
                selection,
                messages,
                conversations.get(owner_of(selection.row)),
                transactions.get(selection.row.message_id, ()),
            )
            for selection in group
        ]
        named = {agent_id for draft in drafts if draft is not None for agent_id in draft.agent_ids}
        agents = _read_agents(reading, named)
        return [
            (
                selection.row,
                None
                if draft is None
                else make_record(draft, messages, agents, users.get(selection.row.user_id or "")),
            )
            for selection, draft in zip(group, drafts, strict=True)
        ]

    def _choose_together(
        self, reading: Reading, found: Found, by_owner: Mapping[Owner, Sequence[Row]]
    ) -> list[Row]:
        """Choose what to read from the short conversations, of which many are read at once; gives the odd rows."""
        odd: list[Row] = []
        left = {owner: rows for owner, rows in by_owner.items() if not self._pages.was_long(owner)}
        while len(left) > 1 and found.stored_bytes <= self._group_bytes:
            wanted = list(dict.fromkeys(conversation_id for conversation_id, _ in left))
            rows, is_all = self._pages.read_together(reading, wanted)
            read: dict[Owner, dict[DocumentKey, StoredRow]] = defaultdict(dict)
            for item in rows:
                read[owner_of(item.row)][item.row.key] = item
            # A long conversation is read by pages whatever it is read with, so that its trace is the same.
            short = [owner for owner in left if len(read.get(owner, ())) in range(1, PAGE_ROWS)]
            for owner in short:
                choice = self._choose(reading, found, left.pop(owner), read[owner], complete=True)
                odd += found.add(owner, choice)
            if is_all or len(short) * _SHORT_SHARE < len(wanted):
                break
        return odd

    def _choose_from_pages(self, reading: Reading, found: Found, owner: Owner, rows: Sequence[Row]) -> Choice:
        """Choose what to read from an owner's newest rows, of which a few pages are read at most."""
        conversation_id, user_id = owner
        choice = Choice(make_excerpt([], complete=False), (), rows)
        stored: dict[DocumentKey, StoredRow] = {}
        # A question is nearly always what its answer names.
        own = {name for row in rows for name in (row.message_id, row.parent_message_id) if name is not None}
        since: object = None
        for number in range(_MOST_PAGES if user_id is not None else 0):
            page, complete = self._pages.read_newest(
                reading, conversation_id, user_id or "", whole=own, since=since
            )
            before = len(stored)
            stored.update((item.row.key, item) for item in page)
            choice = self._choose(reading, found, rows, stored, complete=complete)
            if not (number or complete or choice.odd) and all(item.is_cut for item in choice.settled):
                self._pages.note_enough(owner, _count_needed(choice.settled, page))
            is_there = all(row.message_id in choice.excerpt.rows for row in choice.odd)
            if complete or not choice.odd or not (is_there and choice.excerpt.slack_milliseconds is not None):
                break
            if len(stored) == before:
                break
            since = page[-1].document.get("createdAt")
        return choice

    def _choose(
        self,
        reading: Reading,
        found: Found,
        rows: Sequence[Row],
        stored: Mapping[DocumentKey, StoredRow],
        *,
        complete: bool,
    ) -> Choice:
        """Choose from what was read of a conversation; `odd` are the rows for which that does not tell enough."""
        excerpt = make_excerpt([item.row for item in stored.values()], complete=complete)

        def message_of(key: DocumentKey, read: dict[DocumentKey, Message]) -> Message | None:
            message = found.messages.get(key) or read.get(key)
            if message is not None:
                return message
            item = stored.get(key)
            if item is not None and (item.is_whole or (read is found.earlier and item.has_content)):
                message = reading.read_message(item.document, key, earlier=read is found.earlier)
                if message is not None:
                    read[key] = message
            return message

        def text_of(row: Row) -> int | None:
            message = message_of(row.key, found.earlier)
            return 0 if message is None else least_text_bytes(message)

        bounded = HistoryLimits(self._stored_bytes, self._history_bytes, text_of)
        unbounded = HistoryLimits(self._stored_bytes)
        settled, odd = [], []
        for row in rows:
            own = message_of(row.key, found.messages)
            limits = unbounded if own is None or reaches_into_history(own) else bounded
            selection = select_rows(row, excerpt, limits)
            if not is_settled(selection, excerpt):
                odd.append(row)
                continue
            settled.append(selection)
            for needed in selection.own_rows:
                message_of(needed.key, found.messages)
            for needed in selection.ancestors:
                message_of(needed.key, found.earlier)
        return Choice(excerpt, settled, odd)

    def _choose_from_all(self, reading: Reading, found: Found, rows: Sequence[Row]) -> None:
        """Choose what to read from all rows of the conversations, without their content.

        Two users may own a conversation of the same id: ids are unique only together with the user.
        """
        by_owner: dict[Owner, dict[str, Row]] = defaultdict(dict)
        query = {"conversationId": {"$in": list({row.conversation_id for row in rows})}}
        for document in reading.find("messages", query, ROW_FIELDS):
            row = reading.read_row(document, document.get("bytes"))
            if row is not None:
                by_owner[owner_of(row)][row.message_id] = row
        limits = HistoryLimits(self._stored_bytes)
        for owner in {owner_of(row) for row in rows}:
            found.excerpts[owner] = make_excerpt(list(by_owner[owner].values()), complete=True)
        found.selections += [select_rows(row, found.excerpts[owner_of(row)], limits) for row in rows]

    def _make_draft(
        self,
        reading: Reading,
        selection: RowSelection,
        messages: Mapping[DocumentKey, Message],
        conversation: Conversation | None,
        transactions: tuple[Transaction, ...],
    ) -> Draft | None:
        """The draft with what only other rows tell: whether it is a copy. Most need nothing more."""
        draft = make_draft(selection, messages, conversation, transactions)
        if draft is None:
            return None
        answers = draft.rows_to_compare
        if answers:
            keys = (row.key for row in answers)
            draft = draft.with_answers(_read_earlier(reading, keys).values())
        if draft.needs_rows_elsewhere:
            draft = draft.with_rows_elsewhere(_read_nearby(reading, selection.row))
        return draft


def _count_needed(selections: Sequence[RowSelection], page: Sequence[StoredRow]) -> int:
    """How many of a page's rows, from its first on, hold all that selections have."""
    needed = {row.key for selection in selections for row in selection.rows}
    return max((place for place, item in enumerate(page, 1) if item.row.key in needed), default=0)


def read_messages(
    reading: Reading, keys: Iterable[DocumentKey], fields: Mapping[str, object]
) -> dict[DocumentKey, Message]:
    """Whole messages by `_id`. A row that is not a message is reported and left out."""
    found = map(reading.read_message, _find_messages(reading, keys, fields))
    return {message.key: message for message in found if message is not None}


def _read_earlier(reading: Reading, keys: Iterable[DocumentKey]) -> dict[DocumentKey, Message]:
    """Messages by `_id`, as far as a history shows them."""
    documents = _find_messages(reading, keys, HISTORY_FIELDS)
    found = [reading.read_message(document, earlier=True) for document in documents]
    return {message.key: message for message in found if message is not None}


def _find_messages(
    reading: Reading, keys: Iterable[DocumentKey], fields: Mapping[str, object]
) -> list[dict[str, Any]]:
    wanted = [from_key(key) for key in keys]
    return reading.find("messages", {"_id": {"$in": wanted}}, fields) if wanted else []


def _read_nearby(reading: Reading, row: Row) -> Sequence[Row]:
    """Rows of other conversations that were inserted shortly before and after a row."""
    own = from_key(row.key)
    if not isinstance(own, ObjectId):
        return []
    found: list[Mapping[str, Any]] = []
    for operator, order, seconds in (("$lt", -1, -_NEARBY_SECONDS), ("$gt", 1, _NEARBY_SECONDS)):
        bound = ObjectId(f"{max(0, int(row.key[:8], 16) + seconds):08x}" + "00" * 8)
        limits = {operator: own, "$gte" if order < 0 else "$lt": bound}
        query = {"_id": limits, "conversationId": {"$ne": row.conversation_id}}
        found += reading.find("messages", query, ROW_FIELDS, limit=_NEARBY_ROWS, sort=[("_id", order)])
    rows = (reading.read_row(item, item.get("bytes")) for item in found)
    return [row for row in rows if row is not None]


def _read_conversations(reading: Reading, conversation_ids: Sequence[str]) -> Mapping[Owner, Conversation]:
    query = {"conversationId": {"$in": conversation_ids}}
    found = reading.find("conversations", query, {"messages": 0})
    read = (read_conversation(to_key(document["_id"]), document) for document in found)
    return {(item.conversation_id, item.user_id): item for item in read if item is not None}


def _read_agents(reading: Reading, agent_ids: Iterable[str]) -> Mapping[str, Agent]:
    wanted = list(agent_ids)
    if not wanted:
        return {}
    own = ("name", "provider", "model", "instructions", "model_parameters", "updatedAt")
    fields = {"id": 1, **dict.fromkeys(own, 1), **{f"versions.{name}": 1 for name in own}}
    found = map(read_agent, reading.find("agents", {"id": {"$in": wanted}}, fields))
    return {agent.agent_id: agent for agent in found if agent is not None}
