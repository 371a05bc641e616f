"""Recordings played at their own pace, side by side, into the database of a running daemon; and what came of it."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from tailer.demo.stage.player import play
from tailer.demo.stage.replica_set import ReplicaSet
from tests.e2e.daemon import Metrics, langfuse_settings, start
from tests.e2e.databases import open_databases
from tests.e2e.expectations import ExpectedTurn, Sent, Traffic, place, sent_spans
from tests.e2e.pacing import play_in_step
from tests.fakes.langfuse import FakeLangfuse

QUICK: Final = {
    "TAILER_SETTLE_SECONDS": "0.3",
    "TAILER_CHECKPOINT_SECONDS": "0.2",
    "TAILER_PARK_SECONDS": "1",
    "TAILER_LOOKUP_SECONDS": "1",
}
"""Settings for people who type within a second what others type within a minute."""
UNANSWERED: Final = {"07-errors": 1, "20-kill-midstream": 1}
"""How many questions of a recording never got a response."""
FOLLOWED: Final = ("05-edit-in-place", "11-feedback", "13-deletes")
"""Recordings in which people come back to turns that have ended."""
MARKED_AS_GUESS: Final = {"estimated", "output_only", "unknown"}
LONGEST_SILENCE: Final = timedelta(seconds=4)


@dataclass(frozen=True, slots=True)
class Played:
    """What was played, what the destination held in the end, and what the daemon said of itself."""

    traffic: Mapping[str, Traffic]
    fake: FakeLangfuse
    metrics: Metrics
    output: str

    def of(self, name: str) -> dict[str, Sent]:
        """The traces in the conversations of a recording, by id."""
        return traces_in(self.fake, self.conversations(name))

    def conversations(self, name: str) -> set[str]:
        """All conversations of a recording, those of its copies too."""
        events = self.traffic[name].recording.events
        rows = [event.full_document for event in events if event.collection in ("messages", "conversations")]
        return {row["conversationId"] for row in rows if row is not None}

    def expected(self, name: str) -> list[ExpectedTurn]:
        """The turns of a recording that must have arrived under the settings as they come."""
        return [] if name == "12-temporary" else self.traffic[name].finished_turns()

    def outcomes(self, outcome: str) -> float:
        """How many turns ended that way."""
        return turns_done(self.metrics, outcome)


def turns_done(metrics: Metrics, outcome: str) -> float:
    """How many turns a scrape says ended in a way."""
    return metrics.series.get(("tailer_pairs_total", frozenset({("outcome", outcome)})), 0.0)


def traces_in(fake: FakeLangfuse, conversations: set[str]) -> dict[str, Sent]:
    """The traces of some conversations, by id."""
    traces = (sent_spans(fake.trace(trace_id)) for trace_id in fake.trace_ids())
    return {trace.trace_id: trace for trace in traces if trace.session in conversations}


def place_all(names: Iterable[str]) -> dict[str, Traffic]:
    """Recordings that all begin now."""
    now = datetime.now(UTC)
    return {name: place(name, now) for name in names}


async def play_live(
    replica_set: ReplicaSet,
    directory: Path,
    traffic: Mapping[str, Traffic],
    settings: Mapping[str, str],
    *,
    unanswered: int = 0,
    in_step: Collection[str] = (),
) -> Played:
    """Play recordings side by side while a daemon runs; so many questions must time out before it is ended.

    What follows a turn in the recordings named by `in_step` waits until the daemon has sent the turn.
    """
    async with open_databases(replica_set) as databases, FakeLangfuse() as fake:
        all_settings = {**databases.settings, **QUICK, **langfuse_settings(fake.url), **settings}
        async with start(all_settings, directory=directory) as daemon:
            await daemon.wait_until_ready()
            plays = (
                play_in_step(each, databases.source, fake, max_gap=LONGEST_SILENCE)
                if name in in_step
                else play(each.recording, databases.source, speed=1.0, max_gap=LONGEST_SILENCE)
                for name, each in traffic.items()
            )
            await asyncio.gather(*plays)
            await databases.wait_until_done(daemon.must_run)
            metrics = await daemon.wait_for_metrics(
                lambda found: turns_done(found, "unanswered") >= unanswered
            )
            daemon.terminate()
            assert await daemon.exit_code() == 0
    assert fake.duplicates() == []
    assert fake.unresolved_parents() == []
    assert fake.violations == []
    assert fake.state.unknown_requests == []
    return Played(traffic, fake, metrics, daemon.output)
