"""Sets the gauges on a beat of its own, so that a lag is true even if nothing happens.

Lag is measured by the server's clock. An idle stream has none; the lag of a silent one grows every second. Nothing is
ever NaN: an unknown value has no series.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

from tailer.core.stream.hints import Interest, Stream
from tailer.core.stream.positions import POLL_SECONDS, Answer, lag_seconds
from tailer.core.turn.turns import Wait
from tailer.flow.backlog import Backlog
from tailer.flow.destinations import Destination
from tailer.flow.parking import Parking
from tailer.flow.shares import Shares
from tailer.health import Health, State
from tailer.metrics import Metrics, catalogue, sending_catalogue

BEAT_SECONDS = 2.5
"""Prometheus asks every 15 seconds or less often, and what an idle daemon does most often is this."""


def show_state(metrics: Metrics, health: Health) -> None:
    """Set the gauge of the daemon's state."""
    for state in State:
        metrics.gauge(catalogue.STATE).labels(state.value).set(1 if state is health.state else 0)


class Sampler:
    """Looks at the parts of the daemon and reports what it sees to metrics and health.

    `redactions` counts, by rule, what the masking replaced. `began` is the server's answer when this process connected:
    a stream that has not opened counts from there.
    """

    def __init__(
        self,
        metrics: Metrics,
        health: Health,
        backlog: Backlog,
        parking: Parking,
        destinations: Sequence[Destination],
        shares: Shares,
        redactions: Mapping[str, int],
        streams: Sequence[Stream],
        began: Answer,
    ) -> None:
        self._metrics = metrics
        self._health = health
        self._backlog = backlog
        self._parking = parking
        self._destinations = destinations
        self._shares = shares
        self._redactions = redactions
        self._redactions_told: Counter[str] = Counter()
        self._streams = streams
        self._began = began

    async def run(self) -> None:
        """Sample on every beat, for ever; a late beat is the event loop's lag."""
        while True:
            expected = time.monotonic() + BEAT_SECONDS
            self.sample()
            await asyncio.sleep(BEAT_SECONDS)
            self._metrics.histogram(catalogue.LOOP_LAG).observe(max(0.0, time.monotonic() - expected))

    def sample(self) -> None:
        """Set every gauge once."""
        now = time.monotonic()
        self._health.loop_seconds = now
        self._tell_troubles()
        show_state(self._metrics, self._health)
        for stream in self._streams:
            self._sample_stream(stream, now)
        self._sample_turns(now)
        self._sample_redactions()
        for destination in self._destinations:
            self._sample_destination(destination, now)

    def _tell_troubles(self) -> None:
        """Tell the probes which destinations refuse what is sent, and which of several accept nothing."""
        is_alone = len(self._destinations) == 1
        self._health.destinations = len(self._destinations)
        self._health.refusals = {
            "Langfuse" if is_alone else f"destination {each.name}": each.health.remedy
            for each in self._destinations
            if each.health.remedy is not None
        }
        self._health.absences = {
            each.name: (each.presence.waited_seconds, each.debts.count)
            for each in self._destinations
            if each.presence.is_away and each.health.remedy is None
        }

    def _sample_destination(self, destination: Destination, now: float) -> None:
        metrics, name, delivery = self._metrics, destination.name, destination.delivery
        metrics.gauge(sending_catalogue.QUEUE_LENGTH).labels(name).set(delivery.queue_length)
        metrics.gauge(sending_catalogue.QUEUE_CAPACITY).labels(name).set(delivery.queue_capacity)
        metrics.gauge(sending_catalogue.OWED).labels(name).set(destination.debts.count)
        metrics.gauge(sending_catalogue.AWAY).labels(name).set(1 if destination.presence.is_away else 0)
        metrics.gauge(sending_catalogue.EXPORT_LAG).labels(name).set(self._export_lag(destination, now))

    def _export_lag(self, destination: Destination, now: float) -> float:
        """The age of the oldest turn that a destination still has to acknowledge, 0 when there is none."""
        turns, backlog = self._backlog.turns, self._backlog
        held = [backlog.oldest_position(stream) for stream in self._streams]
        times = [position.cluster_seconds for position in held if position is not None]
        owed = destination.debts.oldest_seconds
        overdue = max(0, backlog.source_seconds - owed) if owed is not None else 0.0
        # Cluster time stands still in a quiet database; the entry's own age does not.
        waits = partial(self._shares.waits_for, destination.name)
        waiting = turns.oldest_seconds(except_for=Interest.QUESTION, where=waits)
        if waiting is None:
            return overdue
        # A position belongs to no destination, so it tells an age only where there is one destination.
        is_alone = len(self._destinations) == 1
        behind = max(0, backlog.source_seconds - min(times)) if times and is_alone else 0
        return max(overdue, behind, now - waiting)

    def _sample_redactions(self) -> None:
        for rule, count in self._redactions.items():
            new = count - self._redactions_told[rule]
            self._metrics.count(catalogue.REDACTIONS, rule, by=new)
            self._redactions_told[rule] = count

    def _sample_stream(self, stream: Stream, now: float) -> None:
        metrics, backlog, name = self._metrics, self._backlog, stream.value
        last, position = backlog.answers.last(stream), self._began.source_seconds
        if last is None:
            # It has not opened in this term, so it is behind since its checkpoint, or since the daemon began.
            metrics.gauge(catalogue.CONNECTED).labels(name).set(0)
        else:
            metrics.gauge(catalogue.SOURCE_TIME).set(backlog.source_seconds)
            polled = time.time() - (now - last.told_seconds)
            metrics.gauge(catalogue.LAST_POLL).labels(name).set(polled)
        if backlog.is_started(stream):
            position = backlog.read_position(stream).cluster_seconds
            metrics.gauge(catalogue.POSITION_TIME).labels(name).set(position)
        lag = lag_seconds(last or self._began, position, now)
        metrics.gauge(catalogue.STREAM_LAG).labels(name).set(lag)
        silent = backlog.answers.silent_seconds(stream)
        if silent is not None:
            metrics.gauge(catalogue.CONNECTED).labels(name).set(1 if silent <= POLL_SECONDS else 0)
            self._health.answered_seconds[stream] = now - silent
        elif backlog.answers.is_paused(stream):
            # It is not being asked, so its silence says nothing about MongoDB.
            self._health.answered_seconds.pop(stream, None)

    def _sample_turns(self, now: float) -> None:
        turns, pending = self._backlog.turns, self._metrics.gauge(catalogue.PENDING)
        pending.labels("awaiting_settle").set(turns.count(Interest.RESPONSE) + turns.count(Interest.TITLE))
        questions = turns.count(Interest.QUESTION) + self._parking.count(Wait.RESPONSE)
        pending.labels("awaiting_response").set(questions)
        pending.labels("awaiting_finalise").set(self._parking.count(Wait.FINISH))
        pending.labels("awaiting_approval").set(self._parking.count(Wait.APPROVAL))
        oldest = turns.oldest_seconds()
        self._metrics.gauge(catalogue.OLDEST_PENDING).set(0 if oldest is None else now - oldest)
        held = [self._backlog.oldest_position(stream) for stream in self._streams]
        times = [position.cluster_seconds for position in held if position is not None]
        if times:
            self._metrics.gauge(sending_catalogue.OLDEST_UNACKNOWLEDGED).set(min(times))
        else:
            self._metrics.forget(sending_catalogue.OLDEST_UNACKNOWLEDGED)
