"""Collects, beat by beat and event by event, what the status page shows, and makes the report on demand."""

from collections.abc import Callable, Sequence

from tailer.core.policy.policies import TracesShown
from tailer.core.trace.observations import Trace
from tailer.events import Event
from tailer.health import Condition
from tailer.web.page.figures import Figures
from tailer.web.page.report import Report, make_report
from tailer.web.page.samples import History, Sample
from tailer.web.page.traces import RecentTraces
from tailer.web.page.troubles import Troubles


class StatusBoard:
    """The memory of the status page. Events are only counted; figures are read on the beat and on demand."""

    def __init__(
        self,
        version: str,
        read_figures: Callable[[], Figures],
        read_condition: Callable[[], Condition],
        *,
        shown: TracesShown,
        monotonic: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._version = version
        self._read_figures = read_figures
        self._read_condition = read_condition
        self._monotonic = monotonic
        self._wall_clock = wall_clock
        self._history = History()
        self._troubles = Troubles()
        self._traces = RecentTraces(shown)

    def beat(self) -> None:
        """Keep a sample of the figures when it is time for one."""
        now = self._monotonic()
        if not self._history.is_due(now):
            return
        figures = self._read_figures()
        self._history.add(
            Sample(
                at_seconds=now,
                read_lag_seconds=figures.read_lag_seconds,
                export_lag_seconds=figures.export_lag_seconds,
                events_total=figures.events_total,
                traces_total=figures.traces_total,
            )
        )

    def record(self, event: Event) -> None:
        """Count an event."""
        self._troubles.record(event, self._wall_clock())

    def keep_traces(self, traces: Sequence[Trace]) -> None:
        """Keep what the page shows of acknowledged traces."""
        self._traces.add(traces)

    def report(self) -> Report:
        """The report of this moment."""
        return make_report(
            self._version,
            self._read_condition(),
            self._read_figures(),
            self._history.course(self._monotonic()),
            self._troubles,
            self._traces,
            now_seconds=self._wall_clock(),
        )
