"""One destination, a Langfuse over HTTP or one in memory, as the cases see it."""

import time
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Protocol, Self

from tailer.core.identity import TraceId
from tailer.core.trace.otlp import SpanContext
from tailer.flow.ports import FollowupSink, MediaLibrary, Sink
from tailer.flow.sending.outcomes import Refused, Retry, Unknown
from tailer.langfuse.annotations import LangfuseAnnotations
from tailer.langfuse.connection import Credentials, LangfuseConnection
from tailer.langfuse.media import LangfuseMedia, MediaOptions
from tailer.langfuse.spans import LangfuseSpans
from tests.evidence import Events
from tests.fakes.langfuse import FakeLangfuse, Route, answer, bad_span, cut, too_large
from tests.memory import Answer, MemoryDestination, MemoryFollowups, MemoryMedia, MemorySink

PICTURE = "images/cat.png"
_REQUEST = timedelta(seconds=1)


class DestinationWorld(Protocol):
    """A destination, and what can happen to it."""

    @property
    def sink(self) -> Sink: ...

    @property
    def followups(self) -> FollowupSink: ...

    @property
    def media(self) -> MediaLibrary:
        """Has the file `PICTURE`."""
        ...

    def trace_ids(self) -> list[TraceId]:
        """The traces that it holds, in the order of their arrival."""
        ...

    def score(self, score_id: str) -> object:
        """The value of a score, None where there is none."""
        ...

    def refuse_keys(self) -> None:
        """The keys are revoked."""
        ...

    def reject(self, message_id: str) -> None:
        """One turn is not valid."""
        ...

    def limit(self, size_bytes: int) -> None:
        """A proxy takes no more in one request."""
        ...

    def lose_answer(self, *, taken: bool) -> None:
        """The next request for spans gets no answer that anybody hears."""
        ...

    async def go_away(self) -> None:
        """Nothing listens there any more."""
        ...


class MemoryDestinationWorld:
    """A destination in memory."""

    def __init__(self) -> None:
        self._held = MemoryDestination(time.monotonic)
        self.sink = MemorySink(self._held)
        self.followups = MemoryFollowups(self._held)
        self.media = MemoryMedia()

    def trace_ids(self) -> list[TraceId]:
        return self._held.trace_ids()

    def score(self, score_id: str) -> object:
        score = self._held.scores.get(score_id)
        return None if score is None else score.value

    def refuse_keys(self) -> None:
        self._held.refuses_keys = True
        self.media.trouble = Refused("http_401")

    def reject(self, message_id: str) -> None:
        self._held.rejects = lambda turn: turn == message_id

    def limit(self, size_bytes: int) -> None:
        self._held.largest_bytes = size_bytes

    def lose_answer(self, *, taken: bool) -> None:
        self._held.answers.append(Answer(Unknown("lost"), taken=taken))

    async def go_away(self) -> None:
        self._held.is_away = True
        self.media.trouble = Retry("connection")


class LangfuseWorld:
    """The fake Langfuse over real HTTP, through the adapters of the daemon."""

    def __init__(self, fake: FakeLangfuse, files: Path) -> None:
        self._fake = fake
        credentials = Credentials(fake.url, fake.public_key, fake.secret_key)
        self._connection = LangfuseConnection(credentials, request_timeout=_REQUEST, connections=2)
        self._stack = AsyncExitStack()
        self.sink = LangfuseSpans(self._connection, SpanContext("test"))
        self.followups = LangfuseAnnotations(self._connection, environment="test")
        (files / PICTURE).parent.mkdir(parents=True)
        (files / PICTURE).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(64)))
        self.media = LangfuseMedia(self._connection, MediaOptions(files, largest_bytes=1000), Events())

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def trace_ids(self) -> list[TraceId]:
        return [TraceId(trace_id) for trace_id in self._fake.trace_ids()]

    def score(self, score_id: str) -> object:
        score = self._fake.score(score_id)
        return None if score is None else score["value"]

    def refuse_keys(self) -> None:
        self._fake.faults.add(answer(401, route=Route.ANY, times=None))

    def reject(self, message_id: str) -> None:
        self._fake.faults.add(bad_span(f"turn {message_id}"))

    def limit(self, size_bytes: int) -> None:
        self._fake.faults.add(too_large(size_bytes))

    def lose_answer(self, *, taken: bool) -> None:
        self._fake.faults.add(cut(stored=taken))

    async def go_away(self) -> None:
        await self._fake.stop()
