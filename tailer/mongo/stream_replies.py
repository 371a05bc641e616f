"""Where a change stream begins, and what its replies bring: hints with their positions, and the position after them."""

from collections.abc import Mapping, Sequence
from typing import Any

from bson import Timestamp

from tailer.core.stream.positions import StreamPosition, token_seconds
from tailer.flow.records import StreamBatch
from tailer.mongo.failures import StreamUnsupported
from tailer.mongo.hint_pipeline import cluster_seconds, decode_hint


def start_stage(position: StreamPosition, *, by_time: bool = False) -> dict[str, object]:
    """Where `$changeStream` begins: after a token, at a moment, or at the moment of a token."""
    token = position.token
    if token is None:
        return {"startAtOperationTime": Timestamp(position.cluster_seconds, 1)}
    if by_time:
        # The token's own time, inclusive. The events of that moment come again and are dropped.
        return {"startAtOperationTime": Timestamp(int(token[2:10], 16), int(token[10:18], 16))}
    return {"startAfter": {"_data": token}}


def drop_seen(events: Sequence[Mapping[str, Any]], skip_until: str | None) -> Sequence[Mapping[str, Any]]:
    """The events after that of a token, where a stream was begun at the token's time; all of them without a token."""
    if skip_until is None:
        return events
    for index, event in enumerate(events):
        if event["_id"]["_data"] == skip_until:
            return events[index + 1 :]
    return [event for event in events if event["_id"]["_data"] > skip_until]


def make_batch(reply: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> StreamBatch:
    """The hints of a reply's events, each with the position after it. Events that say nothing give none."""
    hints = []
    for event in events:
        position = position_of(event["_id"]["_data"])
        hint = decode_hint(event, position)
        if hint is not None:
            hints.append((hint, position))
    return StreamBatch(hints, position_of(end_token(reply)), cluster_seconds(reply.get("operationTime")))


def end_token(reply: Mapping[str, Any]) -> str:
    """The token after everything that a reply brings; raises StreamUnsupported where the server gives none."""
    token = reply["cursor"].get("postBatchResumeToken", {}).get("_data")
    if not isinstance(token, str):
        raise StreamUnsupported
    return token


def position_of(token: str) -> StreamPosition:
    """The position after the event of a token."""
    return StreamPosition(token, token_seconds(token) or 0)
