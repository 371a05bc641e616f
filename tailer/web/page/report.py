"""The report that `/status.json` gives and the page shows: one JSON-like value, described in `docs/status-page.md`."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from tailer.health import Condition
from tailer.web.page.figures import DestinationFigures, Figures, StreamFigures
from tailer.web.page.judgement import judge
from tailer.web.page.samples import Course
from tailer.web.page.traces import RecentTraces
from tailer.web.page.troubles import Troubles

Report: TypeAlias = dict[str, Any]


def make_report(
    version: str,
    condition: Condition,
    figures: Figures,
    course: Course,
    troubles: Troubles,
    traces: RecentTraces,
    *,
    now_seconds: float,
) -> Report:
    """Everything that the page shows; `now_seconds` since 1970. An unknown value is None, never a guess."""
    judgement = judge(condition, figures, now_seconds=now_seconds)
    return {
        "version": version,
        "now": round(now_seconds, 3),
        "uptime_seconds": round(condition.uptime_seconds, 1),
        "state": condition.state,
        "ready": not condition.problems,
        "tone": judgement.tone.value,
        "sentence": judgement.sentence,
        "attention": [*judgement.attention],
        "lag": {
            "read_seconds": _rounded(figures.read_lag_seconds),
            "export_seconds": _rounded(figures.export_lag_seconds),
        },
        "open_turns": _counts(figures.open_turns),
        "oldest_open_seconds": _rounded(figures.oldest_open_seconds),
        "turns": _counts(_happened(figures.turns)),
        "events_total": _whole(figures.events_total),
        "traces_total": _whole(figures.traces_total),
        "dead_letters": {
            "kept": _whole(figures.dead_letters_kept),
            "since_start": _counts(_happened(figures.dead_letters)),
        },
        "gaps": {"since_start": condition.gaps, "unfilled": _whole(figures.gaps_unfilled)},
        "oplog": {
            "headroom_seconds": _rounded(figures.oplog_headroom_seconds),
            "window_seconds": _rounded(figures.oplog_window_seconds),
        },
        "streams": {name: _stream(stream, now_seconds) for name, stream in figures.streams.items()},
        "destinations": {name: _destination(each) for name, each in figures.destinations.items()},
        "checkpoint_age_seconds": _oldest_checkpoint(figures, now_seconds),
        "epoch": _whole(figures.epoch),
        "errors": [
            {
                "kind": trouble.kind,
                "level": trouble.level,
                "count": trouble.count,
                "last_at": round(trouble.last_seconds, 3),
            }
            for trouble in troubles.latest_first()
        ],
        "course": _course(course),
        "traces_shown": traces.shown.value,
        "traces": traces.newest_first(),
    }


def _stream(stream: StreamFigures, now_seconds: float) -> Report:
    position, stored = stream.position_cluster_seconds, stream.stored_cluster_seconds
    behind = None if position is None or stored is None else max(0.0, position - stored)
    return {
        "connected": stream.is_connected,
        "lag_seconds": _rounded(stream.lag_seconds),
        "checkpoint_age_seconds": _age(stream.stored_at_seconds, now_seconds),
        "checkpoint_behind_seconds": _rounded(behind),
        "oplog_headroom_seconds": _rounded(stream.oplog_headroom_seconds),
    }


def _destination(destination: DestinationFigures) -> Report:
    return {
        "away": destination.is_away,
        "refuses": destination.refuses,
        "lag_seconds": _rounded(destination.lag_seconds),
        "owed": _whole(destination.owed),
        "traces_total": _whole(destination.traces_total),
    }


def _oldest_checkpoint(figures: Figures, now_seconds: float) -> float | None:
    ages = [_age(stream.stored_at_seconds, now_seconds) for stream in figures.streams.values()]
    return max((age for age in ages if age is not None), default=None)


def _age(at_seconds: float | None, now_seconds: float) -> float | None:
    return None if at_seconds is None else round(max(0.0, now_seconds - at_seconds), 1)


def _course(course: Course) -> Report:
    return {
        "span_seconds": course.span_seconds,
        "step_seconds": course.step_seconds,
        "read_lag_seconds": [_rounded(value) for value in course.read_lag_seconds],
        "export_lag_seconds": [_rounded(value) for value in course.export_lag_seconds],
        "events_per_minute": [_rounded(value) for value in course.events_per_minute],
        "traces_per_minute": [_rounded(value) for value in course.traces_per_minute],
    }


def _happened(counts: Mapping[str, float]) -> Mapping[str, float]:
    """Only the counters above 0: those of a closed set of labels begin at 0, and forty zeros are no help."""
    return {label: count for label, count in counts.items() if count}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _counts(values: Mapping[str, float]) -> dict[str, int]:
    return {name: int(value) for name, value in values.items()}
