"""Reads of observations: what of that which was sent is there, and how often.

All traces that are asked for go into one request, because Langfuse Cloud counts reads by the minute (30 on Hobby). A
server without that filter is asked for each trace, and one without the newer read at all for each observation.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import httpx

from tailer.core.identity import ObservationId, TraceId
from tailer.core.json_text import encode_json
from tailer.flow.records import Probe
from tailer.flow.sending.outcomes import Unanswered, Unreadable
from tailer.langfuse.answers import PASSING, Answer, Meaning, understand
from tailer.langfuse.connection import LangfuseConnection
from tailer.outbound.failures import describe_failure
from tailer.outbound.replies import read_json

_OBSERVATIONS_PATH: Final = "/api/public/v2/observations"
_PAGE_OBSERVATIONS: Final = 1000
"""The most that Langfuse gives at once."""
_IDS_A_URL: Final = 190
"""Of 32 digits in 39 characters each: a URL of 7,600, where nginx takes 8,192 by default and Node 16,384 of headers."""
_URL_TOO_LONG: Final = frozenset({400, 414, 431})
_OVERLOADED: Final = 422
"""`Request timed out`: ClickHouse had too little time or memory for this read (4.16)."""
_PATIENT_OVERLOADS: Final = 3
"""Such answers in a row, after which fewer traces are asked for at once."""

Counted = Mapping[ObservationId, int] | Unanswered | Unreadable


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A read that was answered with something other than observations."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class _FilterIgnored:
    """A read that was answered with traces that were not asked for: the server does not know the filter."""


class ObservationReads:
    """Reads of one Langfuse project; remembers what its server cannot do."""

    def __init__(self, connection: LangfuseConnection) -> None:
        self._connection = connection
        self._ids_a_url = _IDS_A_URL
        self._overloads = 0

    async def count(self, probes: Sequence[Probe]) -> Counted:
        """How often each observation is there: what was sent twice is there twice."""
        counted: Counter[ObservationId] = Counter({probe.observation_id: 0 for probe in probes})
        waiting = list(dict.fromkeys(probe.trace_id for probe in probes))
        while waiting:
            some, waiting = waiting[: self._ids_a_url], waiting[self._ids_a_url :]
            found = await self._count_pages(_query_for(some), frozenset(some))
            if isinstance(found, _FilterIgnored):
                if len(some) == 1:
                    return Unreadable("traces of others")
                self._ids_a_url = 1
                waiting = [*some, *waiting]
                continue
            if isinstance(found, _Refusal):
                self._note_overload(found.answer, len(some))
                if len(some) > 1 and found.answer.status in _URL_TOO_LONG:
                    # A gateway with shorter URLs, or a server that does not know the filter: in the end one at a time.
                    self._ids_a_url = (len(some) + 1) // 2
                    waiting = [*some, *waiting]
                    continue
                if found.answer.meaning in (Meaning.NOT_THERE, Meaning.NO_LANGFUSE):
                    found = await self._count_singly([probe for probe in probes if probe.trace_id in some])
                else:
                    return _classify(found.answer)
            if isinstance(found, Unanswered | Unreadable):
                return found
            counted.update({name: copies for name, copies in found.items() if name in counted})
        self._overloads = 0
        return counted

    def _note_overload(self, answer: Answer, traces: int) -> None:
        """A read that is too much for the server again and again is made smaller for the next time."""
        self._overloads = self._overloads + 1 if answer.status == _OVERLOADED else 0
        if self._overloads >= _PATIENT_OVERLOADS and traces > 1:
            self._ids_a_url, self._overloads = (traces + 1) // 2, 0

    async def _count_pages(
        self, query: str, trace_ids: frozenset[str]
    ) -> Counted | _Refusal | _FilterIgnored:
        """The observations of some traces, with their copies."""
        counted: Counter[ObservationId] = Counter()
        cursor = ""
        while True:
            suffix = f"&cursor={quote(cursor, safe='')}" if cursor else ""
            response = await self._get(f"{_OBSERVATIONS_PATH}?{query}{suffix}")
            if isinstance(response, Unanswered):
                return response
            answer = understand(response)
            if answer.meaning is not Meaning.TAKEN:
                return _Refusal(answer)
            page = _read_page(response)
            if isinstance(page, Unreadable):
                return page
            rows, cursor = page
            if any(trace_id not in trace_ids for trace_id, _ in rows):
                return _FilterIgnored()
            counted.update(observation_id for _, observation_id in rows)
            if not cursor or not rows:
                return counted

    async def _count_singly(self, probes: Sequence[Probe]) -> Counted:
        """Servers in the mode of release 3 have reads of single observations, and keep one of each id."""
        counted: dict[ObservationId, int] = {}
        for probe in probes:
            response = await self._get(f"/api/public/observations/{probe.observation_id}")
            if isinstance(response, Unanswered):
                return response
            answer = understand(response)
            if answer.meaning is Meaning.TAKEN:
                counted[probe.observation_id] = 1
            elif answer.meaning is Meaning.NOT_THERE and _says_not_found(response):
                counted[probe.observation_id] = 0
            else:
                return _classify(answer)
        return counted

    async def _get(self, path: str) -> httpx.Response | Unanswered:
        try:
            return await self._connection.http.get(path)
        except httpx.RequestError as error:
            return Unanswered(type(error).__name__, remedy=describe_failure(error))


def _says_not_found(response: httpx.Response) -> bool:
    """Whether the observation is not there; a server in its own mode says the same of the read itself (4.16)."""
    return response.status_code == httpx.codes.NOT_FOUND and "not available" not in response.text


def _query_for(trace_ids: Sequence[TraceId]) -> str:
    """The query for some traces, written by hand: the commas of the list need no escape, and the URL is short."""
    fixed = f"limit={_PAGE_OBSERVATIONS}&fields=core"
    if len(trace_ids) == 1:
        return f"{fixed}&traceId={trace_ids[0]}"
    condition = {"type": "stringOptions", "column": "traceId", "operator": "any of", "value": list(trace_ids)}
    return f"{fixed}&filter={quote(encode_json([condition]), safe=',:')}"


def _read_page(response: httpx.Response) -> tuple[list[tuple[str, ObservationId]], str] | Unreadable:
    """Trace and id of each observation, and the cursor of the next page."""
    try:
        document = read_json(response)
    except ValueError:
        return Unreadable(f"http_{response.status_code}")
    try:
        rows = [(str(row["traceId"]), ObservationId(str(row["id"]))) for row in document["data"]]
        return rows, str(document["meta"].get("cursor") or "")
    except (TypeError, KeyError, AttributeError):
        return Unreadable("unknown shape")


def _classify(answer: Answer) -> Unanswered | Unreadable:
    if answer.meaning in PASSING or answer.status == _OVERLOADED:
        return Unanswered(answer.reason, answer.after_seconds, is_limited=answer.meaning is Meaning.LIMITED)
    return Unreadable(answer.reason)
