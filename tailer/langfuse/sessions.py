"""Reads which traces the sessions of LibreChat's conversations hold, from any sender."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import httpx

from tailer.core.json_text import encode_json
from tailer.langfuse.answers import Meaning, understand
from tailer.langfuse.connection import LangfuseConnection
from tailer.outbound.replies import read_json

_PATH: Final = "/api/public/v2/observations"
_MOST_OBSERVATIONS: Final = 1000


@dataclass(frozen=True, slots=True)
class Root:
    """The first observation of a trace: it has no parent."""

    session_id: str
    trace_id: str
    observation_id: str


async def read_roots(connection: LangfuseConnection, session_ids: Sequence[str]) -> Sequence[Root] | str:
    """The roots among the last thousand observations of some sessions, or a word for the reason why there are none.

    Servers before release 4 cannot be read this way.
    """
    condition = {
        "type": "stringOptions",
        "column": "sessionId",
        "operator": "any of",
        "value": list(session_ids),
    }
    query = (
        f"limit={_MOST_OBSERVATIONS}&fields=core,basic&filter={quote(encode_json([condition]), safe=',:')}"
    )
    try:
        response = await connection.http.get(f"{_PATH}?{query}")
    except httpx.RequestError as error:
        return type(error).__name__
    answer = understand(response)
    if answer.meaning is not Meaning.TAKEN:
        return answer.reason
    try:
        rows = read_json(response)["data"]
        return [
            Root(str(row["sessionId"]), str(row["traceId"]), str(row["id"]))
            for row in rows
            if not row["parentObservationId"] and row["sessionId"] in session_ids
        ]
    except (ValueError, TypeError, KeyError):
        return "unknown_shape"
