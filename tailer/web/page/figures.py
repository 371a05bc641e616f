"""The figures of a moment, as somebody read them: everything may be not known."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StreamFigures:
    """One stream: times are seconds of the clock that the name says, since 1970."""

    lag_seconds: float | None = None
    is_connected: bool | None = None
    position_cluster_seconds: float | None = None
    stored_cluster_seconds: float | None = None
    stored_at_seconds: float | None = None
    oplog_headroom_seconds: float | None = None


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


@dataclass(frozen=True, slots=True)
class Condition:
    """What the daemon says of itself to the probes: its state, and why it is not ready, in words for an operator."""

    state: str
    problems: tuple[str, ...]
    gaps: int
    uptime_seconds: float
