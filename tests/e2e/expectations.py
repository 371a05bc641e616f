"""What must arrive for a recording: worked out from the truth about it and from its own last documents.

Nothing here uses the code under test, so both have to come to the same result on their own.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

from tailer.demo.stage.recording import Document, Recording
from tests.fakes.langfuse import StoredSpan
from tests.recordings import ProviderRequest, TrueTurn, Truth, load, truth

TURN: Final = "librechat-turn"
TITLE: Final = "librechat-title"
_FAILURE_PREFIX: Final = "An error occurred while processing the request: "
_LOWEST_ERROR_STATUS: Final = 400

Tokens = Mapping[str, int]
"""Langfuse's exclusive buckets; none of them is zero."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool call: its arguments as a JSON value, its output as stored."""

    name: str
    arguments: object
    output: str | None


@dataclass(frozen=True, slots=True)
class Observation:
    """An observation as the destination got it."""

    parent: str | None
    type: str
    name: str
    input: Any
    output: Any
    level: str
    status: str | None
    model: str | None
    usage: Tokens
    cost: float
    metadata: Mapping[str, object]
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Sent:
    """A trace as the destination got it."""

    trace_id: str
    name: str
    session: str
    user: str
    tags: tuple[str, ...]
    metadata: Mapping[str, object]
    observations: tuple[Observation, ...]

    @property
    def root(self) -> Observation:
        """The observation without a parent; there must be one."""
        (root,) = (observation for observation in self.observations if observation.parent is None)
        return root

    @property
    def tokens(self) -> Tokens:
        """The sum over all generations."""
        return add_tokens(observation.usage for observation in self.of("generation"))

    @property
    def dollars(self) -> float:
        """What all observations together cost."""
        return sum(observation.cost for observation in self.observations)

    def of(self, kind: str) -> list[Observation]:
        """The observations of one type in the order in which they were sent."""
        return [observation for observation in self.observations if observation.type == kind]


@dataclass(frozen=True, slots=True)
class ExpectedTurn:
    """What one turn's trace must show. `tokens` is None where the provider did not tell LibreChat."""

    response_id: str
    parent_id: str
    session: str
    user: str
    question: str
    answer: str | None
    failure: str | None
    stopped: bool
    outcome: str
    models: frozenset[str]
    tokens: Tokens | None
    tools: tuple[Tool, ...]

    @property
    def trace_id(self) -> str:
        """The id that LibreChat's own tracing gives to the turn."""
        return trace_id_of(self.response_id)


@dataclass(frozen=True, slots=True)
class Traffic:
    """A recording on its place in time, with the truth about it."""

    recording: Recording
    truth: Truth

    @property
    def conversations(self) -> set[str]:
        """The conversations of all turns."""
        return {turn.conversation_id for turn in self.truth.turns}

    def last_documents(self, collection: str) -> dict[str, Document]:
        """The documents of a collection as they stand when everything was played, by `_id`."""
        found: dict[str, Document] = {}
        for event in self.recording.events:
            if event.collection == collection:
                key = str(event.document_key["_id"])
                if event.full_document is None:
                    found.pop(key, None)
                else:
                    found[key] = event.full_document
        return found

    def turns(self) -> list[ExpectedTurn]:
        """The turns that have a response."""
        messages = {document["messageId"]: document for document in self.last_documents("messages").values()}
        found = []
        for turn in self.truth.turns:
            response = messages.get(_response_id(turn, messages) or "")
            if response is not None:
                found.append(_expect(turn, response))
        return found

    def finished_turns(self) -> list[ExpectedTurn]:
        """The turns that have a response, as they were when it was finished: before any edit and any deletion."""
        finished = self._responses_as_finished()
        rows = {row["messageId"]: row for pair in finished.values() for row in pair}
        found = []
        for turn in self.truth.turns:
            pair = finished.get(_response_id(turn, rows) or "")
            if pair is not None:
                found.append(_expect(turn, pair[0]))
        return found

    def unanswered(self) -> dict[str, TrueTurn]:
        """The turns that never got a response, by the trace id of their question."""
        answered = {turn.parent_id for turn in self.finished_turns()}
        questions = [row for row in self.last_documents("messages").values() if row["isCreatedByUser"]]
        return {
            trace_id_of(f"unanswered-{row['messageId']}"): turn
            for turn in self.truth.turns
            for row in questions
            if row["text"] == turn.text and row["messageId"] not in answered
        }

    def copies(self) -> dict[str, Document]:
        """The responses that no provider was asked for, by trace id."""
        genuine = {turn.response_id for turn in self.finished_turns()}
        return {
            trace_id_of(row["messageId"]): row
            for row in self.last_documents("messages").values()
            if not row["isCreatedByUser"] and row["messageId"] not in genuine
        }

    def _responses_as_finished(self) -> dict[str, tuple[Document, Document]]:
        """Each response with its question, both as they stood when the response was last written as a whole."""
        by_id: dict[str, Document] = {}
        finished: dict[str, tuple[Document, Document]] = {}
        for event in self.recording.events:
            row = event.full_document
            if event.collection != "messages" or row is None:
                continue
            by_id[row["messageId"]] = row
            whole = event.update is None or "unfinished" in event.update.updated_fields
            if whole and not row["isCreatedByUser"]:
                question = by_id.get(row["parentMessageId"])
                if question is not None:
                    finished[row["messageId"]] = (row, question)
        return finished

    def dollars(self) -> dict[str, float]:
        """What LibreChat charged for each turn and each title, by trace id; a million credits are a dollar."""
        charged: dict[str, float] = {}
        for document in self.last_documents("transactions").values():
            # Credits that a person was given concern no message.
            if document.get("messageId"):
                seed = ("title-" if document["context"] == "title" else "") + document["messageId"]
                trace_id = trace_id_of(seed)
                charged[trace_id] = charged.get(trace_id, 0.0) - document["tokenValue"] / 1_000_000
        return charged

    def titles(self) -> dict[str, Tokens]:
        """What the provider counted for each title that was generated, by trace id."""
        billed = {
            document["messageId"]
            for document in self.last_documents("transactions").values()
            if document.get("context") == "title"
        }
        messages = {document["messageId"]: document for document in self.last_documents("messages").values()}
        titles: dict[str, Tokens] = {}
        for turn in self.truth.turns:
            response_id = _response_id(turn, messages)
            if turn.title_requests and response_id in billed:
                titles[trace_id_of(f"title-{response_id}")] = _told(turn.title_requests)
        assert len(titles) == len(billed), "a title was billed that the truth does not know"
        return titles


def trace_id_of(seed: str) -> str:
    """The trace id that Langfuse's own SDK makes of a seed."""
    return hashlib.sha256(seed.encode()).hexdigest()[:32]


def place(name: str, at: datetime, *, salt: str | None = None) -> Traffic:
    """A recording moved in time, under fresh ids when there is a salt."""
    recording, true = load(name), truth(name)
    if salt is not None:
        recording, true = recording.rename(salt), true.rename(salt)
    moved = recording.shift(at)
    return Traffic(moved, true.shift(by=moved.started_at - recording.started_at))


def sent_spans(spans: Sequence[StoredSpan]) -> Sent:
    """A trace that came as spans."""
    first = spans[0]
    return Sent(
        trace_id=first.trace_id,
        name=str(first.attributes["langfuse.trace.name"]),
        session=first.session_id,
        user=first.user_id,
        tags=_texts(first.attributes.get("langfuse.trace.tags", ())),
        metadata=first.trace_metadata,
        observations=tuple(
            Observation(
                parent=span.parent_span_id,
                type=span.type,
                name=span.name,
                input=span.input,
                output=span.output,
                level=str(span.attributes.get("langfuse.observation.level", "DEFAULT")),
                status=_text(span.attributes.get("langfuse.observation.status_message")),
                model=_text(span.attributes.get("langfuse.observation.model.name")),
                usage=span.usage_details,
                cost=span.cost_details.get("total", 0.0),
                metadata=span.metadata,
                start=_nanoseconds(span.span.start_nanoseconds),
                end=_nanoseconds(span.span.end_nanoseconds),
            )
            for span in spans
        ),
    )


def sent_line(line: str) -> Sent:
    """A trace that came as a line of the file sink."""
    trace = json.loads(line)
    return Sent(
        trace_id=trace["id"],
        name=trace["name"],
        session=trace["session_id"],
        user=trace["user_id"],
        tags=tuple(trace["tags"]),
        metadata=trace["metadata"],
        observations=tuple(
            Observation(
                parent=item.get("parent_id"),
                type=item["type"],
                name=item["name"],
                input=item.get("input"),
                output=item.get("output"),
                level=item["level"],
                status=item.get("status_message"),
                model=item.get("model"),
                usage=item.get("usage", {}),
                cost=item.get("cost", {}).get("total", 0.0),
                metadata=item["metadata"],
                start=datetime.fromtimestamp(item["start_milliseconds"] / 1000, UTC),
                end=datetime.fromtimestamp(item["end_milliseconds"] / 1000, UTC),
            )
            for item in trace["observations"]
        ),
    )


def add_tokens(usages: Iterable[Tokens]) -> Tokens:
    """The sum of usages, bucket by bucket."""
    total: Counter[str] = Counter()
    for usage in usages:
        total.update(usage)
    return +total


def _response_id(turn: TrueTurn, messages: Mapping[str, Document]) -> str | None:
    """The id of the response; where the driver never heard of it, by way of the question's text."""
    if turn.response_message_id is not None:
        return turn.response_message_id
    for document in messages.values():
        question = messages.get(document["parentMessageId"])
        if question is not None and question["isCreatedByUser"] and question["text"] == turn.text:
            return str(document["messageId"])
    return None


def _expect(turn: TrueTurn, response: Document) -> ExpectedTurn:
    parts = response.get("content") or []
    answer = " ".join(part["text"] for part in parts if part["type"] == "text")
    failures = [part["error"].removeprefix(_FAILURE_PREFIX) for part in parts if part["type"] == "error"]
    status = turn.provider_statuses[-1] if turn.provider_statuses else None
    if isinstance(status, int) and status >= _LOWEST_ERROR_STATUS:
        assert str(status) in failures[-1], "the recorded failure is the provider's"
    return ExpectedTurn(
        response_id=response["messageId"],
        parent_id=response["parentMessageId"],
        session=turn.conversation_id,
        user=turn.user_id,
        question=turn.text,
        answer=answer or None,
        failure=failures[-1] if failures else None,
        stopped=response["unfinished"],
        outcome=_outcome(turn),
        models=frozenset(request.model for request in turn.requests),
        tokens=_told(turn.requests) if turn.usage_is_known else None,
        tools=tuple(
            Tool(call["name"], json.loads(call["args"]), call.get("output"))
            for call in (part["tool_call"] for part in parts if part["type"] == "tool_call")
        ),
    )


def _outcome(turn: TrueTurn) -> str:
    """How the last request to the provider ended decides; a tab that is closed does not hang up on it."""
    status = turn.provider_statuses[-1]
    if status == "client_closed":
        return "aborted"
    return "complete" if status == HTTPStatus.OK else "error"


def _told(requests: Iterable[ProviderRequest]) -> Tokens:
    """What the provider counted: OpenAI includes cached tokens in the input, Anthropic does not."""
    usages = []
    for request in requests:
        usage = request.usage
        if usage is None:
            continue
        if "prompt_tokens" in usage:
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            buckets = {
                "input": usage["prompt_tokens"] - cached,
                "input_cached_tokens": cached,
                "output": usage["completion_tokens"],
            }
        else:
            buckets = {
                "input": usage["input_tokens"],
                "input_cached_tokens": usage["cache_read_input_tokens"],
                "input_cache_creation": usage["cache_creation_input_tokens"],
                "output": usage["output_tokens"],
            }
        usages.append(buckets)
    return add_tokens(usages)


def _nanoseconds(since: int) -> datetime:
    return datetime.fromtimestamp(since // 1_000_000 / 1000, UTC)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, tuple) else ()


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def without_names(answer: object) -> object:
    """The answer without the names under which those of parallel agents stand."""
    if not isinstance(answer, str) or not answer.startswith("["):
        return answer
    return " ".join(block.partition("]\n")[2] for block in answer.split("\n\n"))
