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
    """The rows without those whose trace was sent for a row of another user: they become dead letters.

    `sent` are the records that there are, each with its row. Where that row is gone, or is the same user's, this one is
    the same turn, stored anew or twice.
    """
    others = {
        row.key: sent[trace_id_of(row)] for row in rows if sent.get(trace_id_of(row), row.key) != row.key
    }
    if not others:
        return rows
    users = {row.key: row.user_id for row in await reader.locate(list(others.values()))}
    kept = []
    for row in rows:
        other = others.get(row.key)
        if other not in users or users[other] == row.user_id:
            kept.append(row)
            continue
        entry = entries[row.key]
        # The record of that id is the other row's.
        work.name(entry, unknown_record_id(entry.work, row.key), row.message_id)
        await work.bury(Share(entry, at), ID_OF_ANOTHER_ROW)
    return kept
