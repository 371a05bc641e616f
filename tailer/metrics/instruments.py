"""The instruments of Prometheus' client, made from the catalogue: one registry per daemon, nothing global."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from tailer.metrics.catalogue import ABSENT_UNTIL_KNOWN, CATALOGUE
from tailer.metrics.declaration import Kind, Metric
from tailer.metrics.labels import DESTINATION
from tailer.metrics.usage_catalogue import USAGE


class Instruments:
    """All instruments by their declaration. Series whose labels have closed sets begin at 0, so that the first failure
    is an increase."""

    def __init__(self, *, with_usage: bool, destinations: Sequence[str]) -> None:
        self._destinations = tuple(destinations)
        self.registry = CollectorRegistry()
        # A second series per counter would say when it began; the start of the process says the same.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        declared = [metric for section in CATALOGUE for metric in section.metrics]
        wanted = [metric for metric in declared if with_usage or metric not in USAGE.metrics]
        self._counters: Mapping[Metric, Counter] = {
            metric: Counter(metric.name, metric.meaning, metric.label_names, registry=self.registry)
            for metric in wanted
            if metric.kind is Kind.COUNTER
        }
        self._gauges: Mapping[Metric, Gauge] = {
            metric: Gauge(metric.name, metric.meaning, metric.label_names, registry=self.registry)
            for metric in wanted
            if metric.kind is Kind.GAUGE and not metric.labels and metric not in ABSENT_UNTIL_KNOWN
        }
        self._late_gauges: dict[Metric, Gauge] = {
            metric: Gauge(metric.name, metric.meaning, metric.label_names, registry=self.registry)
            for metric in wanted
            if metric.kind is Kind.GAUGE and metric.labels
        }
        self._histograms: Mapping[Metric, Histogram] = {
            metric: Histogram(
                metric.name,
                metric.meaning,
                metric.label_names,
                buckets=metric.buckets,
                registry=self.registry,
            )
            for metric in wanted
            if metric.kind is Kind.HISTOGRAM
        }
        for metric, counter in self._counters.items():
            for values in self._known_labels(metric):
                counter.labels(*values)
        for metric, histogram in self._histograms.items():
            for values in self._known_labels(metric):
                histogram.labels(*values)
        for metric in self._late_gauges:
            self._begin(metric)

    def _known_labels(self, metric: Metric) -> Iterator[tuple[str, ...]]:
        """All combinations of label values, where each label has a closed set or is the destination."""
        sets = [self._destinations if label is DESTINATION else label.values for label in metric.labels]
        known = [values for values in sets if values is not None]
        if known and len(known) == len(sets):
            yield from itertools.product(*known)

    def _begin(self, metric: Metric) -> None:
        """A gauge by destination begins at 0, as one without labels does."""
        if metric.labels == (DESTINATION,):
            for name in self._destinations:
                self._late_gauges[metric].labels(name).set(0)

    def count(self, metric: Metric, *values: str, by: float = 1) -> None:
        """Increase a counter; a value that is not in the label's set counts as `other`."""
        fitted = [label.fit(value) for label, value in zip(metric.labels, values, strict=True)]
        self._counters[metric].labels(*fitted).inc(by)

    def counter(self, metric: Metric) -> Counter:
        """The counter of a declaration."""
        return self._counters[metric]

    def gauge(self, metric: Metric) -> Gauge:
        """The gauge of a declaration; a gauge that is absent until it is known appears with the first call."""
        found = self._gauges.get(metric) or self._late_gauges.get(metric)
        if found is None:
            found = Gauge(metric.name, metric.meaning, metric.label_names, registry=self.registry)
            self._late_gauges[metric] = found
        return found

    def forget(self, metric: Metric) -> None:
        """The value of a gauge is no longer known: it has no series, or 0 without labels and by
        destination."""
        if metric.labels:
            self.gauge(metric).clear()
            self._begin(metric)
        elif metric in self._gauges:
            self._gauges[metric].set(0)
        elif metric in self._late_gauges:
            self.registry.unregister(self._late_gauges.pop(metric))

    def histogram(self, metric: Metric) -> Histogram:
        """The histogram of a declaration."""
        return self._histograms[metric]
