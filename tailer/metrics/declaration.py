"""The declaration of a metric: kind, labels with their sets, meaning."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The kinds of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


OTHER = "other"
"""The value of a label for anything outside its set."""


@dataclass(frozen=True, slots=True)
class Label:
    """A label. `values` is its closed set; None if `meaning` says what bounds it."""

    name: str
    meaning: str
    values: tuple[str, ...] | None = None

    def fit(self, value: str) -> str:
        """The value, or `other` if the label has a set and the value is not in it."""
        return value if self.values is None or value in self.values else OTHER


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric; `meaning` is for the reader of the number. `buckets` are upper bounds in its unit."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names alone."""
        return tuple(label.name for label in self.labels)


@dataclass(frozen=True, slots=True)
class Section:
    """Metrics of one subject."""

    title: str
    metrics: tuple[Metric, ...]
