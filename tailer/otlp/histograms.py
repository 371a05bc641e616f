"""Histograms of one stretch of time (delta temporality), and their OTLP protobuf (`ExportMetricsServiceRequest`)."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from struct import pack
from typing import Final, TypeAlias

from tailer.core.trace.otlp import encode_field
from tailer.otlp.conventions import SCHEMA_URL
from tailer.otlp.encoding import encode_scope
from tailer.otlp.wire import Value, encode_attributes, encode_number, encode_text, encode_time

_MOST_SERIES: Final = 2_000
"""The limit of OpenTelemetry's SDKs."""
_OVERFLOW: Final = (("otel.metric.overflow", True),)
_DELTA: Final = 1
_ATTRIBUTE_OF_POINT: Final = b"\x4a"

Series: TypeAlias = tuple[tuple[str, Value], ...]
"""The attributes of one series."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """A histogram of the conventions: its name, unit (UCUM), meaning and the upper bounds of its buckets."""

    name: str
    unit: str
    description: str
    bounds: tuple[float, ...]


@dataclass(slots=True)
class _Point:
    buckets: list[int]
    sum: float = 0.0


@dataclass(slots=True)
class Histogram:
    """What was recorded of an instrument since it was last emptied. Beyond 2000 series, one series holds the rest."""

    instrument: Instrument
    _points: dict[Series, _Point] = field(default_factory=dict)

    def record(self, value: float, attributes: Mapping[str, Value]) -> None:
        """Count one value."""
        series: Series = tuple(sorted(attributes.items()))
        if series not in self._points and len(self._points) >= _MOST_SERIES:
            series = _OVERFLOW
        point = self._points.get(series)
        if point is None:
            point = self._points[series] = _Point([0] * (len(self.instrument.bounds) + 1))
        point.buckets[bisect_left(self.instrument.bounds, value)] += 1
        point.sum += value

    def __len__(self) -> int:
        """The number of series."""
        return len(self._points)

    def take(self, start_milliseconds: int, end_milliseconds: int) -> bytes:
        """The metric with its points for that stretch of time; it is empty from now on."""
        points, self._points = self._points, {}
        instrument = self.instrument
        bounds = encode_field(b"\x3a", _doubles(instrument.bounds))
        encoded = b"".join(
            encode_field(b"\x0a", _encode_point(series, point, bounds, start_milliseconds, end_milliseconds))
            for series, point in points.items()
        )
        return b"".join(
            (
                encode_text(b"\x0a", instrument.name),
                encode_text(b"\x12", instrument.description),
                encode_text(b"\x1a", instrument.unit),
                encode_field(b"\x4a", encoded + encode_number(b"\x10", _DELTA)),
            )
        )


def frame_metrics(resource: bytes, metrics: Iterable[bytes]) -> bytes:
    """A whole request: one resource, one scope, and its metrics."""
    scope_metrics = b"".join(
        (
            encode_scope(),
            *(encode_field(b"\x12", metric) for metric in metrics),
            encode_text(b"\x1a", SCHEMA_URL),
        )
    )
    return encode_field(b"\x0a", resource + encode_field(b"\x12", scope_metrics))


def _encode_point(series: Series, point: _Point, bounds: bytes, start: int, end: int) -> bytes:
    return b"".join(
        (
            encode_time(b"\x11", start),
            encode_time(b"\x19", end),
            b"\x21" + pack("<Q", sum(point.buckets)),
            b"\x29" + pack("<d", point.sum),
            encode_field(b"\x32", pack(f"<{len(point.buckets)}Q", *point.buckets)),
            bounds,
            encode_attributes(_ATTRIBUTE_OF_POINT, dict(series)),
        )
    )


def _doubles(numbers: Sequence[float]) -> bytes:
    return pack(f"<{len(numbers)}d", *numbers)
