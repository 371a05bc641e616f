"""The catalogue as a document and as data, for `docs/metrics.md` and `tailer metrics`."""

from collections.abc import Iterator
from typing import Any, Final

from tailer.metrics.catalogue import CATALOGUE
from tailer.metrics.declaration import Label, Metric

_HEAD: Final = """\
# Metrics

`make derive` writes this page from `tailer/metrics/catalogue.py`, and `tailer metrics` prints the same list. The daemon
serves the metrics at `/metrics` on `TAILER_HTTP_PORT` (9464), in Prometheus' text format or in OpenMetrics.

All metrics use base units. No label ever holds a user, a conversation, a message, the text of an error or a URL.
Counters whose labels have a closed set begin at 0, so that the first failure is an increase. An unknown value has no
series; no value is ever NaN. Prometheus' client adds `process_*` (memory, CPU, start time, open files), `python_gc_*`
and `python_info`.

**Lag.** `tailer_stream_lag_seconds` is measured every 2.5 seconds on MongoDB's clock, even if nothing happens. Lag =
cluster time of MongoDB's last answer minus the read position. If MongoDB was silent for more than four seconds, the
silence is added. An idle stream has lag 0; the lag of a silent one grows every second. `tailer_export_lag_seconds` is
the age of the oldest unacknowledged turn, for each destination; of one that is away, it is the age of the oldest turn
that is owed to it.
"""
_TAIL: Final = """\
## What is not there, and why

- `tailer_task_restarts_total`: a task that ends unexpectedly ends the process; see `process_start_time_seconds`.
- `tailer_reconcile_*`: reconcile is a command and reports on its own output.
- `tailer_schema_unknown_total`: fields are read by name; unknown fields are ignored.
- `tailer_pair_assembly_seconds`: turns are built in rounds; people wait for `tailer_end_to_end_latency_seconds`.
- `tailer_oplog_used_ratio`: an old oplog is always full.
- `tailer_queue_bytes`: a batch has at most `TAILER_BATCH_BYTES`.
"""


def list_metrics() -> list[dict[str, Any]]:
    """Every metric as JSON-like data, in the order of the catalogue."""
    return [
        {
            "name": metric.name,
            "kind": metric.kind.value,
            "meaning": metric.meaning,
            "labels": {
                label.name: list(label.values) if label.values else label.meaning for label in metric.labels
            },
            "section": section.title,
        }
        for section in CATALOGUE
        for metric in section.metrics
    ]


def write_document() -> str:
    """The text of `docs/metrics.md`."""
    return "\n".join([_HEAD, *_sections(), _TAIL])


def _sections() -> Iterator[str]:
    for section in CATALOGUE:
        yield f"## {section.title}\n"
        yield "| metric | kind | |\n|---|---|---|"
        for metric in section.metrics:
            yield f"| `{metric.name}` | {metric.kind.value} | {_describe(metric)} |"
        yield ""


def _describe(metric: Metric) -> str:
    return ". ".join([metric.meaning, *(_describe_label(label) for label in metric.labels)])


def _describe_label(label: Label) -> str:
    values = ", ".join(f"`{value}`" for value in label.values or ())
    words = [words for words in (label.meaning, values) if words]
    return f"**{label.name}**: {'; '.join(words)}"
