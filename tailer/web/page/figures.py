"""The figures of a moment. Any of them may be unknown."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry


@dataclass(frozen=True, slots=True)
class StreamFigures:
    """One stream. Times are seconds since 1970, by the clock that the name says."""

    lag_seconds: float | None = None
    is_connected: bool | None = None
    position_cluster_seconds: float | None = None
    stored_cluster_seconds: float | None = None
    stored_at_seconds: float | None = None
    oplog_headroom_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class DestinationFigures:
    """One destination. `owed` counts turns and changes that are kept for it while it is away; `refuses` is about its
    keys."""

    lag_seconds: float | None = None
    owed: float | None = None
    is_away: bool | None = None
    refuses: bool | None = None
    traces_total: float | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts are since the start of the process; `open_turns` by what they wait for, `turns` by outcome."""

    streams: Mapping[str, StreamFigures] = field(default_factory=dict)
    export_lag_seconds: float | None = None
    open_turns: Mapping[str, float] = field(default_factory=dict)
    oldest_open_seconds: float | None = None
    turns: Mapping[str, float] = field(default_factory=dict)
    events_total: float | None = None
    traces_total: float | None = None
    dead_letters: Mapping[str, float] = field(default_factory=dict)
    dead_letters_kept: float | None = None
    gaps_unfilled: float | None = None
    oplog_window_seconds: float | None = None
    epoch: float | None = None
    destinations: Mapping[str, DestinationFigures] = field(default_factory=dict)

    @property
    def read_lag_seconds(self) -> float | None:
        """The lag of the stream that is furthest behind."""
        return max(
            (stream.lag_seconds for stream in self.streams.values() if stream.lag_seconds is not None),
            default=None,
        )

    @property
    def oplog_headroom_seconds(self) -> float | None:
        """How much of the oplog is left before the stored position of any stream falls out of it."""
        headrooms = [stream.oplog_headroom_seconds for stream in self.streams.values()]
        return min((headroom for headroom in headrooms if headroom is not None), default=None)


_Series = Mapping[str, Mapping[str, float]]
"""The values of a metric by those of its one label, by the empty text where it has none."""


_EXPORT_LAG: Final = "tailer_export_lag_seconds"
_TRACES: Final = "tailer_export_traces_total"
_AWAY: Final = "tailer_export_away"
_OWED: Final = "tailer_export_owed"
_PAUSED: Final = "tailer_export_paused"
_OF_DESTINATIONS: Final = (_EXPORT_LAG, _AWAY, _OWED, _PAUSED, _TRACES)
_LABELS: Final = {
    "tailer_stream_lag_seconds": "stream",
    "tailer_stream_connected": "stream",
    "tailer_stream_position_timestamp_seconds": "stream",
    "tailer_checkpoint_timestamp_seconds": "stream",
    "tailer_checkpoint_last_success_timestamp_seconds": "stream",
    "tailer_oplog_headroom_seconds": "stream",
    "tailer_oplog_window_seconds": "",
    _EXPORT_LAG: "",
    "tailer_pairs_pending": "kind",
    "tailer_pair_oldest_pending_age_seconds": "",
    "tailer_pairs_total": "outcome",
    "tailer_stream_events_total": "stream",
    _TRACES: "",
    "tailer_dead_letters_total": "reason",
    "tailer_dead_letters_kept": "",
    "tailer_stream_gaps_unfilled": "",
    "tailer_leader_epoch": "",
}


def read_figures(registry: CollectorRegistry) -> Figures:
    """The figures of this moment. A missing metric is an unknown figure."""
    series, by_destination = _read(registry), _read_destinations(registry)
    streams = {name: _stream(series, name) for name in _stream_names(series)}
    # Before any stream is read, as on a standby, the gauges without labels are 0 and mean nothing.
    is_reading = any(stream.lag_seconds is not None for stream in streams.values())
    return Figures(
        streams=streams,
        export_lag_seconds=_only(series, _EXPORT_LAG) if is_reading else None,
        open_turns=series["tailer_pairs_pending"],
        oldest_open_seconds=_only(series, "tailer_pair_oldest_pending_age_seconds") if is_reading else None,
        turns=series["tailer_pairs_total"],
        events_total=sum(series["tailer_stream_events_total"].values()) if is_reading else None,
        traces_total=_only(series, _TRACES) if is_reading else None,
        dead_letters=series["tailer_dead_letters_total"],
        dead_letters_kept=_only(series, "tailer_dead_letters_kept"),
        gaps_unfilled=_only(series, "tailer_stream_gaps_unfilled"),
        oplog_window_seconds=_only(series, "tailer_oplog_window_seconds"),
        epoch=_only(series, "tailer_leader_epoch") or None,
        destinations={name: _destination(known) for name, known in by_destination.items()}
        if is_reading
        else {},
    )


def _read(registry: CollectorRegistry) -> _Series:
    series: dict[str, dict[str, float]] = {name: {} for name in _LABELS}
    for family in registry.restricted_registry(_LABELS).collect():
        for sample in family.samples:
            if sample.name in series:
                key = sample.labels.get(_LABELS[sample.name], "")
                known = series[sample.name].get(key, 0.0)
                # Of several destinations the one that is furthest behind counts.
                series[sample.name][key] = (
                    max(known, sample.value) if sample.name == _EXPORT_LAG else known + sample.value
                )
    return series


def _read_destinations(registry: CollectorRegistry) -> Mapping[str, Mapping[str, float]]:
    """The values of the metrics that every destination has, by its name."""
    found: dict[str, dict[str, float]] = {}
    for family in registry.restricted_registry(_OF_DESTINATIONS).collect():
        for sample in family.samples:
            if sample.name in _OF_DESTINATIONS:
                found.setdefault(sample.labels["destination"], {})[sample.name] = sample.value
    return found


def _destination(known: Mapping[str, float]) -> DestinationFigures:
    away, paused = known.get(_AWAY), known.get(_PAUSED)
    return DestinationFigures(
        lag_seconds=known.get(_EXPORT_LAG),
        owed=known.get(_OWED),
        is_away=None if away is None else bool(away),
        refuses=None if paused is None else bool(paused),
        traces_total=known.get(_TRACES),
    )


def _only(series: _Series, name: str) -> float | None:
    return series[name].get("")


def _stream_names(series: _Series) -> Iterator[str]:
    names = (series["tailer_stream_connected"], series["tailer_stream_lag_seconds"])
    return iter(dict.fromkeys(name for values in names for name in values))


def _stream(series: _Series, name: str) -> StreamFigures:
    connected = series["tailer_stream_connected"].get(name)
    return StreamFigures(
        lag_seconds=series["tailer_stream_lag_seconds"].get(name),
        is_connected=None if connected is None else bool(connected),
        position_cluster_seconds=series["tailer_stream_position_timestamp_seconds"].get(name),
        stored_cluster_seconds=series["tailer_checkpoint_timestamp_seconds"].get(name),
        stored_at_seconds=series["tailer_checkpoint_last_success_timestamp_seconds"].get(name),
        oplog_headroom_seconds=series["tailer_oplog_headroom_seconds"].get(name),
    )
