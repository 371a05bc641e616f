"""Rows whose message id is that of another row, whose trace was sent.

The id of a trace comes from the message id alone, as in LibreChat's own tracing. Recent LibreChats keep message ids
apart by user and tenant, and a client may choose one. So two users can have a message of the same id, and only one
trace.
"""

from collections.abc import Mapping, Sequence

from tailer.core.identity import DocumentKey
from tailer.core.stream.entries import Entry
from tailer.core.trace.export import trace_id_of
from tailer.core.turn.readback import Row
from tailer.flow.destinations import Destination
from tailer.flow.lanes.round import Round, Share
from tailer.flow.letter_reasons import ID_OF_ANOTHER_ROW
from tailer.flow.ports import DocumentReader
from tailer.flow.records import unknown_record_id


async def bury_namesakes(
    work: Round,
    entries: Mapping[DocumentKey, Entry],
    rows: Sequence[Row],
    sent: Mapping[str, DocumentKey],
    reader: DocumentReader,
    *,
    at: Destination,
) -> Sequence[Row]:
    """The rows without those whose trace was sent for another row that is still stored: they become dead letters.

    `sent` are the records that there are, each with its row. Where that row is gone, this one is the same turn, stored
    anew.
    """
    others = {
        row.key: sent[trace_id_of(row)] for row in rows if sent.get(trace_id_of(row), row.key) != row.key
    }
    if not others:
        return rows
    stored = await reader.find_existing(list(others.values()))
    taken = {row.key: row.message_id for row in rows if others.get(row.key) in stored}
    for key, message_id in taken.items():
        entry = entries[key]
        # The record of that id is the other row's.
        work.name(entry, unknown_record_id(entry.work, key), message_id)
        await work.bury(Share(entry, at), ID_OF_ANOTHER_ROW)
    return [row for row in rows if row.key not in taken]
