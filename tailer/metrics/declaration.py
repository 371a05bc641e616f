"""What a metric is declared as: kind, labels with their sets, meaning."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The kinds of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


OTHER = "other"
"""What a label says of a value that is on no list."""


@dataclass(frozen=True, slots=True)
class Label:
    """A label. `values` is its closed set; None where `meaning` says what bounds it."""

    name: str
    meaning: str
    values: tuple[str, ...] | None = None

    def fit(self, value: str) -> str:
        """The value, or `other` where it is on no list of a label that has one."""
        return value if self.values is None or value in self.values else OTHER


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric; `meaning` is what it says, for whoever reads the number. `buckets` are upper bounds in its unit."""

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
