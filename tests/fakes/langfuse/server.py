"""The fake Langfuse server: start it in a test with `async with FakeLangfuse() as fake`, or as a process.

It stands for a self-hosted Langfuse of the version SDK 5 needs, or of another `Release`, is stricter than the real one,
keeps what it accepted, and fails on demand. `reads_a_minute` makes it one of Langfuse Cloud. It estimates no tokens and
calculates no prices: it refuses what the real one would estimate or price.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from tests.fakes.langfuse.control import ControlApi
from tests.fakes.langfuse.faults import FaultPlan, Route
from tests.fakes.langfuse.media import MediaStore
from tests.fakes.langfuse.releases import CURRENT, Release
from tests.fakes.langfuse.routes import MAX_BODY_BYTES, HeldConnections, PublicApi
from tests.fakes.langfuse.rules import Rules, Violation
from tests.fakes.langfuse.scores import Score, ScoreStore
from tests.fakes.langfuse.state import LangfuseState
from tests.fakes.langfuse.store import StoredSpan

PROJECT_ID = "project-test"
DEFAULT_KEYS = ("pk-lf-test", "sk-lf-test")


class FakeLangfuse:
    """A Langfuse server on the loopback interface for as long as the `async with` block lasts."""

    def __init__(
        self,
        *,
        public_key: str = DEFAULT_KEYS[0],
        secret_key: str = DEFAULT_KEYS[1],
        host: str = "127.0.0.1",
        port: int = 0,
        release: Release = CURRENT,
        reads_a_minute: int | None = None,
        shown_back_seconds: float | None = None,
        light: bool = False,
        journal_path: Path | None = None,
        visible_after_seconds: float = 0.0,
        deleted_after_seconds: float = 0.0,
        rules: Rules | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.public_key = public_key
        self.secret_key = secret_key
        self.host = host
        self.port = port
        self.state = LangfuseState(
            rules=rules or Rules(),
            project_id=PROJECT_ID,
            light=light,
            journal_path=journal_path,
            visible_after_seconds=visible_after_seconds,
            deleted_after_seconds=deleted_after_seconds,
            release=release,
            reads_a_minute=reads_a_minute,
            shown_back_seconds=shown_back_seconds,
            clock=clock,
        )
        self._held = HeldConnections()
        self._changed = asyncio.Event()
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        ControlApi(self.state, self._held, notify=self._notify).add_to(application.router)
        PublicApi(
            self.state,
            self._held,
            public_key=public_key,
            secret_key=secret_key,
            notify=self._notify,
        ).add_to(application.router)
        # Bodies are left compressed: what a proxy or Langfuse measures is the bytes on the wire.
        self._runner = web.AppRunner(
            application, auto_decompress=False, access_log=None, shutdown_timeout=30.0
        )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; `port` and `url` are real from now on."""
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Cut what is held and close; what was accepted can still be looked at."""
        self._held.release()
        await self._runner.cleanup()
        self.state.close()

    @property
    def url(self) -> str:
        """The base address, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    @property
    def faults(self) -> FaultPlan:
        """The faults in force; add to them or clear them."""
        return self.state.faults

    @property
    def spans(self) -> list[StoredSpan]:
        """All accepted spans in order of arrival, duplicates included."""
        return self.state.spans.spans

    @property
    def violations(self) -> list[Violation]:
        """Every rule that was broken."""
        return self.state.violations

    @property
    def requests(self) -> Counter[tuple[Route, str]]:
        """How many requests a route and an outcome (status, or what happened to the connection) had."""
        return self.state.requests

    @property
    def scores(self) -> ScoreStore:
        """Scores as they stand, as they were posted and as they were deleted."""
        return self.state.scores

    @property
    def media(self) -> MediaStore:
        """Files that were announced and uploaded."""
        return self.state.media

    def trace(self, trace_id: str) -> list[StoredSpan]:
        """All accepted spans of a trace in order of arrival."""
        self.state.delete_what_is_due()
        return list(self.state.spans.by_trace.get(trace_id, []))

    def trace_ids(self) -> list[str]:
        """The accepted traces in order of their first arrival."""
        self.state.delete_what_is_due()
        return list(self.state.spans.by_trace)

    def score(self, score_id: str) -> Score | None:
        """The newest score with the id, None without one."""
        found = [row for key, row in self.scores.current.items() if key[0] == score_id]
        return found[-1] if found else None

    def duplicates(self) -> list[tuple[str, str]]:
        """(trace id, span id) of everything that was accepted more than once."""
        return self.state.spans.duplicates()

    def unresolved_parents(self) -> list[tuple[str, str]]:
        """(trace id, span id) of every span whose parent never arrived."""
        return self.state.spans.unresolved_parents()

    def release(self) -> None:
        """Cut the connections that are held without an answer."""
        self._held.release()

    def reset(self) -> None:
        """Forget data, faults, counts and the journal."""
        self.state.reset()
        self._held.release()
        self._notify()

    async def wait_until(self, condition: Callable[[], bool], *, timeout_seconds: float = 10.0) -> None:
        """Return once `condition` holds; it is asked after every request. TimeoutError when it never does."""
        async with asyncio.timeout(timeout_seconds):
            while not condition():
                await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
